import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import repeat
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence import scoring
from attninf_assets.influence.document_score import DocumentScore, Text, attention_influence_score
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.model.mixed_precision import to_sixteen_bit
from attninf_assets.influence.model.numeric_class import NUMERIC_CLASSES, NumericClass
from attninf_assets.influence.model.packing import cut_into_windows
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.model.text_tokenizer import TextTokenizer
from attninf_assets.influence.runtime.host_copy import Arriving
from attninf_assets.influence.runtime.progress import BudgetHalved, Progress, ProgressClock, ignore_progress
from attninf_assets.influence.runtime.token_budget import TokenBudget
from attninf_assets.influence.scoring import (
    SCORE_TOLERANCE,
    TokenizedText,
    _Chunk,
    _Pass,
    score_documents,
    tokenized_chunks,
)
from attninf_assets.influence.selector import Selector
from attninf_assets.influence.verification.verified_model import verified
from attninf_assets_tests.support import oracle
from attninf_assets_tests.support.tiny_models import tiny_model
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer, tiny_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

HEADS = (Head(1, 0), Head(2, 3))
MASKED = frozenset({(1, 0), (2, 3)})
MAX_TOKENS = 40
SELECTOR = Selector("m", "t", HEADS, "uniform", MAX_TOKENS, "bos", "float32")
texts_ = st.lists(
    st.text(max_size=12) | st.lists(st.sampled_from(sentences()), max_size=6).map(" ".join), min_size=1, max_size=6
)


@cache
def streamed(name: str = "mistral") -> StreamedModel:
    return StreamedModel(tiny_model(name))


def scored(
    texts: list[str],
    *,
    tokens_at_once: int = 100,
    model: StreamedModel | None = None,
    token_budget: TokenBudget | None = None,
    **kwargs: Any,
) -> list[DocumentScore]:
    chunks = score_documents(
        model or streamed(),
        tiny_text_tokenizer(),
        SELECTOR,
        (Text(str(number), text) for number, text in enumerate(texts)),
        start_token=1,
        token_budget=token_budget or TokenBudget(tokens_at_once),
        n_bytes=sum(len(text.encode()) for text in texts),
        **kwargs,
    )
    return [score for chunk in chunks for score in chunk]


@given(base=st.floats(1e-4, 20), reference=st.floats(0, 40))
def test_the_score_is_the_relative_rise_of_the_loss(base: float, reference: float) -> None:
    score = attention_influence_score(base, reference)
    assert score is not None
    assert score == oracle.score(base, reference)
    assert (score > 0) == (reference > base)
    assert base * (1 + score) == pytest.approx(reference, abs=1e-9 * (base + reference))


def test_a_document_with_no_loss_to_speak_of_has_no_score() -> None:
    assert attention_influence_score(0.99e-4, 5.0) is None
    assert attention_influence_score(1e-4, 2e-4) == pytest.approx(1.0)
    assert DocumentScore("a", 3, 2.0, 3.0).score == 0.5
    assert DocumentScore("a", 3, 0.0, 0.0).score is None


@settings(deadline=None, max_examples=15)
@given(texts=texts_, tokens_at_once=st.integers(2, 200))
def test_scores_equal_the_oracle_in_the_order_the_documents_came(texts: list[str], tokens_at_once: int) -> None:
    found = scored(texts, tokens_at_once=tokens_at_once)
    assert [score.doc_id for score in found] == [str(number) for number in range(len(texts))]
    for text, score in zip(texts, found, strict=True):
        ids = tiny_text_tokenizer().encode(text)
        assert score.n_tokens == len(ids)
        if not ids:
            assert score.score is None
            continue
        base, reference = (
            oracle.mean(
                oracle.document_losses(streamed().model, ids, start_token=1, max_tokens=MAX_TOKENS, masked=masked)
            )
            for masked in (oracle.NOBODY, MASKED)
        )
        assert score.loss_base == pytest.approx(base, abs=1e-4)
        assert score.loss_reference == pytest.approx(reference, abs=1e-4)
        assert score.score == pytest.approx(oracle.score(base, reference), abs=1e-4)


@settings(deadline=None, max_examples=10)
@given(texts=texts_, tokens_at_once=st.integers(2, 200))
def test_windows_of_a_long_document_have_the_scores_of_the_oracle_window_by_window(
    texts: list[str], tokens_at_once: int
) -> None:
    for text, found in zip(texts, scored(texts, tokens_at_once=tokens_at_once), strict=True):
        ids = tiny_text_tokenizer().encode(text)
        if len(ids) <= MAX_TOKENS:
            assert found.window_scores is None
            continue
        expected = []
        for begin in range(0, len(ids), MAX_TOKENS):
            base, reference = (
                oracle.mean(
                    oracle.window_losses(
                        streamed().model, ids[begin : begin + MAX_TOKENS], start_token=1, masked=masked
                    )
                )
                for masked in (oracle.NOBODY, MASKED)
            )
            expected.append(oracle.score(base, reference))
        assert found.window_scores == pytest.approx(expected, abs=1e-4)


def test_a_window_with_no_loss_to_speak_of_has_no_score_and_its_document_may_have_one() -> None:
    document = TokenizedText("a", np.arange(5), 5)
    chunk = _Chunk.of([document], max_tokens=2)
    windows = cut_into_windows(0, document.token_ids, max_tokens=2)
    losses_SR = torch.tensor([[0.00005, 0.00005, 1.0, 3.0, 2.0], [0.5, 0.5, 2.0, 4.0, 1.0]])
    for order in ([2], [0, 1]):  # as they come from the device, longest first or not
        rows = [row for number in order for row in range(2 * number, min(2 * number + 2, 5))]
        done = _Pass(chunk, [windows[number] for number in order], Arriving(losses_SR[:, rows]), flops=0.0)
        chunk.add(done, ProgressClock("bytes", 5, ignore_progress))
    (score,) = chunk.scores()
    assert score.window_scores == (None, pytest.approx(0.5), pytest.approx(-0.5))
    assert score.score == pytest.approx((8.0 - 6.0001) / 6.0001)


@cache
def in_class(name: str, numeric_class: NumericClass) -> StreamedModel:
    model = tiny_model(name)
    if numeric_class != "float32":
        model = to_sixteen_bit(model)
    return verified(model, start_token=1, max_tokens=MAX_TOKENS, float8=numeric_class == "float8")


@pytest.mark.parametrize("numeric_class", NUMERIC_CLASSES)
@settings(deadline=None, max_examples=8)
@given(
    name=st.sampled_from(["llama", "gemma2", "mistral", "qwen3"]),
    several=st.lists(
        st.lists(st.sampled_from(sentences()), min_size=2, max_size=6).map(" ".join), min_size=2, max_size=9
    ),
    tokens_at_once=st.integers(60, 600),
)
def test_a_score_moves_within_the_stated_tolerance_whatever_it_is_batched_with(
    numeric_class: NumericClass, name: str, several: list[str], tokens_at_once: int
) -> None:
    model = in_class(name, numeric_class)
    alone = [score for text in several for score in scored([text], model=model, tokens_at_once=1)]
    together = scored(several, model=model, tokens_at_once=tokens_at_once)
    for one, other in zip(alone, together, strict=True):
        assert one.score is not None
        assert other.score == pytest.approx(one.score, abs=SCORE_TOLERANCE[numeric_class])


@settings(deadline=None, max_examples=10)
@given(texts=texts_, data=st.data())
def test_a_documents_score_does_not_depend_on_the_documents_around_it(texts: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    budgets = data.draw(st.tuples(st.integers(2, 60), st.integers(2, 400)))
    plain = scored(texts, tokens_at_once=budgets[0])
    shuffled = scored([texts[i] for i in order], tokens_at_once=budgets[1])
    for score, i in zip(shuffled, order, strict=True):
        assert score.n_tokens == plain[i].n_tokens
        assert score.loss_base == pytest.approx(plain[i].loss_base, abs=1e-4)
        assert score.loss_reference == pytest.approx(plain[i].loss_reference, abs=1e-4)


def test_masking_by_zero_output_is_another_reference_model() -> None:
    def of(mask: Any) -> DocumentScore:
        selector = Selector("m", "t", HEADS, mask, MAX_TOKENS, "bos", "float32")
        texts = [Text("a", " ".join(sentences()[:3]))]
        [[score]] = score_documents(
            streamed(), tiny_text_tokenizer(), selector, texts, start_token=1, token_budget=TokenBudget(100), n_bytes=1
        )
        return score

    uniform, zero = of("uniform"), of("zero")
    assert zero.loss_base == pytest.approx(uniform.loss_base, abs=1e-5)
    assert abs(zero.loss_reference - uniform.loss_reference) > 0.05
    ids = tiny_text_tokenizer().encode(" ".join(sentences()[:3]))
    expected = oracle.document_losses(
        streamed().model, ids, start_token=1, max_tokens=MAX_TOKENS, masked=MASKED, mask="zero"
    )
    assert zero.loss_reference == pytest.approx(oracle.mean(expected), abs=1e-4)


def test_no_documents_have_no_scores() -> None:
    assert scored([]) == []


@settings(deadline=None)
@given(texts=texts_, chunk_tokens=st.integers(1, 120))
def test_chunks_are_complete_documents_in_order_of_about_the_size_asked_for(
    texts: list[str], chunk_tokens: int
) -> None:
    tokenizer = tiny_text_tokenizer()
    chunks = list(
        tokenized_chunks([Text(str(n), t) for n, t in enumerate(texts)], tokenizer, chunk_tokens=repeat(chunk_tokens))
    )
    documents = [document for chunk in chunks for document in chunk]
    assert [d.doc_id for d in documents] == [str(n) for n in range(len(texts))]
    for text, document in zip(texts, documents, strict=True):
        assert list(document.token_ids) == tokenizer.encode(text)
        assert document.n_bytes == len(text.encode())
    for chunk in chunks[:-1]:
        held = [len(d.token_ids) for d in chunk]
        assert sum(held[:-1]) < chunk_tokens <= sum(held)


@pytest.mark.parametrize("text", ["map", "<s>", "a map</s><s>another<pad>"])
def test_a_document_holds_no_special_token_be_it_added_or_written_out(text: str) -> None:
    [[document]] = tokenized_chunks([Text("a", text)], tiny_text_tokenizer(), chunk_tokens=repeat(100))
    assert not {0, 1, 2} & set(document.token_ids.tolist())
    assert tiny_tokenizer().decode(document.token_ids) == text


@pytest.mark.parametrize("n_documents", [1, 7, 40])
def test_progress_ends_with_every_byte_token_and_document_done(n_documents: int) -> None:
    texts = [f"é{s[:13]}" for s in sentences()[:n_documents]]
    reports: list[Progress | BudgetHalved] = []
    found = scored(texts, tokens_at_once=5, on_progress=reports.append)
    n_bytes = sum(len(text.encode()) for text in texts)
    last = reports[-1]
    assert isinstance(last, Progress)
    assert (last.unit, last.done, last.total) == ("bytes", n_bytes, n_bytes)
    assert last.peak_share is not None
    assert last.tokens == sum(score.n_tokens for score in found)
    assert last.documents == n_documents


def test_a_device_that_runs_out_of_memory_costs_no_document_and_changes_no_score() -> None:
    texts = [" ".join(sentences()[n : n + 2]) for n in range(30)]
    plain = scored(texts, tokens_at_once=4000)
    model = StreamedModel(tiny_model("mistral"))
    rows: list[int] = []

    def holds_at_most_150(_: torch.nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        rows.append(kwargs["input_ids"].numel())
        if rows[-1] > 150:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    model.model.base_model.register_forward_pre_hook(holds_at_most_150, with_kwargs=True)
    reports: list[Progress | BudgetHalved] = []
    token_budget = TokenBudget(4000)
    found = scored(texts, model=model, token_budget=token_budget, on_progress=reports.append)
    assert [score.doc_id for score in found] == [score.doc_id for score in plain]
    for score, expected in zip(found, plain, strict=True):
        assert score.loss_base == pytest.approx(expected.loss_base, abs=1e-4)
        assert score.loss_reference == pytest.approx(expected.loss_reference, abs=1e-4)
    halvings = [report for report in reports if isinstance(report, BudgetHalved)]
    assert len(halvings) == sum(n > 150 for n in rows) > 1
    assert token_budget.tokens == halvings[-1].tokens <= 150
    assert max(n for n in rows if n <= 150) > 75, "no smaller than it has to be"
    last = reports[-1]
    assert isinstance(last, Progress)
    assert last.done == last.total, "progress counts every byte once"


def test_a_reader_that_fails_costs_no_chunk_that_was_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(sentences()[n : n + 2]) for n in range(8)]
    monkeypatch.setattr(scoring, "_batches", lambda texts, **_: ([text] for text in texts))  # read one by one
    monkeypatch.setattr(scoring, "_chunk_sizes", lambda _: repeat(1))  # every document a chunk

    def failing() -> Iterator[Text]:
        yield from (Text(str(number), text) for number, text in enumerate(texts))
        raise OSError("the bucket is away")

    scores: list[DocumentScore] = []
    chunks = score_documents(
        streamed(), tiny_text_tokenizer(), SELECTOR, failing(), start_token=1, token_budget=TokenBudget(40), n_bytes=1
    )
    with pytest.raises(OSError, match="the bucket is away"):
        scores.extend(score for chunk in chunks for score in chunk)
    assert [score.doc_id for score in scores] == [str(n) for n in range(8)]


REAL_TEXTS = [
    textwrap.dedent(text)
    for text in (
        inspect.getdoc(textwrap.wrap),
        inspect.getdoc(textwrap.dedent),
        inspect.getdoc(inspect.getsource),
        inspect.getdoc(str.split),
        inspect.getdoc(dict),
        "a",
    )
    if text
]


@pytest.mark.sample
def test_scores_of_real_texts_equal_the_oracle_on_a_real_model(
    sample_model: Any, sample_tokenizer: TextTokenizer
) -> None:
    heads = (Head(17, 3), Head(17, 4), Head(18, 6), Head(20, 6))
    selector = Selector("m", "t", heads, "uniform", 90, "bos", "float32")
    texts = [Text(str(number), text) for number, text in enumerate(REAL_TEXTS)]
    start = sample_tokenizer.start_token
    found = [
        score
        for chunk in score_documents(
            StreamedModel(sample_model),
            sample_tokenizer,
            selector,
            texts,
            start_token=start,
            token_budget=TokenBudget(256),
            n_bytes=sum(map(len, REAL_TEXTS)),
        )
        for score in chunk
    ]
    assert len(found) == 6
    assert max(score.n_tokens for score in found) > 90, "one of them has to be longer than a window"
    masked = frozenset((head.layer, head.index) for head in heads)
    for text, score in zip(REAL_TEXTS, found, strict=True):
        ids = sample_tokenizer.encode(text)
        base, reference = (
            oracle.mean(oracle.document_losses(sample_model, ids, start_token=start, max_tokens=90, masked=heads_))
            for heads_ in (oracle.NOBODY, masked)
        )
        assert score.loss_base == pytest.approx(base, abs=2e-4)
        assert score.loss_reference == pytest.approx(reference, abs=2e-4)
