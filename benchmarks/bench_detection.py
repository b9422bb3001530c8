"""Head detection against the matrix-product ceiling of the same run.

python -m benchmarks.bench_detection                                    # CPU, sample model, 8 probes of 512 tokens
python -m benchmarks.bench_detection --shape 1.7b --device cuda --probes 800 --probe-tokens 4096

Needs only torch, transformers and numpy where a --shape is given. Random weights retrieve nothing: there the gate that
refuses such a model is opened, and only the speed means anything.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import numpy as np

from attninf_assets.influence import heads
from attninf_assets.influence.heads import detect_retrieval_heads
from attninf_assets.influence.model.text_tokenizer import load_tokenizer
from attninf_assets.influence.probes import Probe, build_probes
from attninf_assets.influence.runtime.token_budget import TokenBudget
from benchmarks.clock import ceiling, timed
from benchmarks.subjects import add_arguments, chosen_subject


def main() -> None:
    """Print the table of measurements."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(arguments, documents=1)
    arguments.add_argument("--probes", type=int, default=8)
    arguments.add_argument("--probe-tokens", type=int, default=512)
    arguments.add_argument("--rounds", type=int, default=2)
    chosen = arguments.parse_args()
    subject = chosen_subject(chosen)
    model = subject.ready()
    if chosen.shape is None:
        probes = sample_probes(chosen.probes, chosen.probe_tokens)
    else:
        heads.SUCCESS = -1.0
        heads.check_singled_out = lambda *_: None
        probes = random_probes(chosen.probes, chosen.probe_tokens)
    n_tokens = sum(len(p.token_ids) for p in probes)
    token_budget = TokenBudget(max(subject.token_budget, chosen.probe_tokens))
    detect_retrieval_heads(model, probes[:2], head_fraction=0.05, token_budget=token_budget)
    print(
        f"{len(probes)} probes, {n_tokens:,} tokens, {subject.device}, {subject.numeric_class}, {model.kernel.__name__}"
    )
    print("| seconds | tokens/s | ceiling, TFLOP/s | of the ceiling |")
    print("|---|---|---|---|")
    detect = partial(detect_retrieval_heads, model, probes, head_fraction=0.05, token_budget=token_budget)
    flops = sum(model.flops.of([len(p.token_ids)], [frozenset()], n_predicted=p.answer_length) for p in probes)
    for _ in range(chosen.rounds):
        before = ceiling(subject.device, subject.product_type)
        done = timed(detect, subject.device)
        found, highest = done.result, (before + ceiling(subject.device, subject.product_type)) / 2
        print(
            f"| {done.seconds:.1f} | {n_tokens / done.seconds:,.0f} | {highest / 1e12:.3f} "
            f"| {flops / done.seconds / highest:.2f} |",
            flush=True,
        )
    print(f"base model's token accuracy {found.token_accuracy:.2f}, {found.n_counted} probes counted")


def sample_probes(n_probes: int, probe_tokens: int) -> Sequence[Probe]:
    """Probes in the sample model's tokens, made of the sample corpus's sentences."""
    from attninf_assets.corpus.sentences import sentences_in  # noqa: PLC0415, not needed with a --shape
    from benchmarks.sample import sample_model_directory, sample_texts  # noqa: PLC0415

    tokenizer = load_tokenizer(sample_model_directory())
    sentences = [sentence for text in sample_texts() for sentence in sentences_in(text)]
    return build_probes(
        sentences,
        tokenizer,
        start_token=tokenizer.start_token,
        n_probes=n_probes,
        max_tokens=probe_tokens,
        seed=0,
    )


def random_probes(n_probes: int, probe_tokens: int) -> list[Probe]:
    """Random tokens, an answer of 25 that stands in the middle, too."""
    rng = np.random.default_rng(0)
    probes = []
    for _ in range(n_probes):
        ids = rng.integers(3, 49_000, probe_tokens).tolist()
        ids[-25:] = ids[probe_tokens // 2 : probe_tokens // 2 + 25]
        probes.append(Probe("", tuple(ids), probe_tokens - 25, probe_tokens, probe_tokens // 2, 1, 0))
    return probes


if __name__ == "__main__":
    main()
