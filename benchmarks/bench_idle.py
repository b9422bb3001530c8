"""How long the device waits for text that is still being read and tokenized, as a share of the scoring time.

python -m benchmarks.bench_idle                                 # CPU, sample model, the sample corpus's files
python -m benchmarks.bench_idle --shape 1.7b --device cuda --documents 20000

Reading, tokenizing and scoring work exactly as in a scoring run. With a --shape the texts are made up, and need only
torch, transformers and numpy.
"""

import argparse
import random
from collections.abc import Iterator

from attninf_assets.influence.document_score import Text
from attninf_assets.influence.engine import Engine
from attninf_assets.influence.model.text_tokenizer import load_tokenizer
from attninf_assets.influence.runtime.progress import BudgetHalved, Progress
from attninf_assets.influence.runtime.token_budget import TokenBudget
from attninf_assets.influence.selector import Selector
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer
from benchmarks.subjects import START, WINDOW, add_arguments, chosen_subject


def main() -> None:
    """Print the last report of a scoring run, and the most that the device can have been idle."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(arguments, documents=40)
    chosen = arguments.parse_args()
    subject = chosen_subject(chosen)
    if chosen.shape is None:
        from benchmarks.sample import sample_model_directory  # noqa: PLC0415, not needed with a --shape

        tokenizer, texts = load_tokenizer(sample_model_directory()), _read(chosen.documents)
    else:
        tokenizer, texts = tiny_text_tokenizer(), _made_up(chosen.documents)
    engine = Engine(
        model=subject.ready(),
        tokenizer=tokenizer,
        start_token=START,
        start_token_name="bos",
        max_tokens=WINDOW,
        token_budget=TokenBudget(subject.token_budget),
    )
    selector = Selector("model", "tokenizer", tuple(subject.heads), "uniform", WINDOW, "bos", subject.numeric_class)
    reports: list[Progress | BudgetHalved] = []
    n_scored = sum(len(chunk) for chunk in engine.score(selector, texts, n_bytes=1, on_progress=reports.append))
    last = reports[-1]
    assert isinstance(last, Progress)
    print(f"{n_scored:,} documents, {last.tokens:,} tokens, {last.tokens_per_second:,.0f} tokens/s on {subject.device}")
    print(f"device idle at most {last.idle_share:.2%} of {last.seconds:.0f} s ({last.seconds_waiting:.2f} s)")


def _read(n_documents: int) -> Iterator[Text]:
    from benchmarks.sample import sample_documents  # noqa: PLC0415, not needed with a --shape

    for number, text in enumerate(sample_documents()):
        if number == n_documents:
            return
        yield Text(str(number), text)


def _made_up(n_documents: int) -> Iterator[Text]:
    """Texts of real lengths: log-normal around 600 tokens of a tokenizer that makes about three of a word."""
    rng = random.Random(0)
    for number in range(n_documents):
        n_sentences = max(1, round(rng.lognormvariate(3.0, 0.9)))
        yield Text(str(number), " ".join(rng.choices(sentences(), k=n_sentences)))


if __name__ == "__main__":
    main()
