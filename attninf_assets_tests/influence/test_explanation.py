"""Explanations add up to the losses, and where heads looked is where plain loops say."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence.engine import Engine
from attninf_assets.influence.explanation import ExplainedWindow, explain_text
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.runtime.token_budget import TokenBudget
from attninf_assets.influence.selector import Selector
from attninf_assets_tests.support import oracle
from attninf_assets_tests.support.planted_model import PLANTED, planted_model
from attninf_assets_tests.support.tiny_models import tiny_model
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

HEADS = (Head(1, 0), Head(1, 3), Head(2, 3))
MASKED = frozenset((head.layer, head.index) for head in HEADS)
_SPLIT = "a 日本 é\n\n 👩‍👩‍👧 "  # characters of several bytes, each of them a token
texts_ = st.lists(st.sampled_from([*sentences()[:9], _SPLIT, "\t\r\n", "</s>"]) | st.text(max_size=8), max_size=5).map(
    " ".join
)


def selector(heads: tuple[Head, ...] = HEADS, *, max_tokens: int = 40) -> Selector:
    return Selector("m", "t", heads, "uniform", max_tokens, "bos", "float32")


@cache
def engine(name: str) -> Engine:
    model = StreamedModel(planted_model() if name == "planted" else tiny_model(name))
    return Engine(model, tiny_text_tokenizer(), 1, "bos", 40, TokenBudget(100))


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2", "gpt_oss"])
@settings(deadline=None, max_examples=4)
@given(text=texts_)
def test_losses_and_attended_positions_are_those_of_plain_loops(name: str, text: str) -> None:
    found = explain_text(engine(name), selector(), text, n_windows=100)
    ids = tiny_text_tokenizer().encode(text)
    model = engine(name).model.model
    for stream, masked in enumerate((oracle.NOBODY, MASKED)):
        expected = oracle.document_losses(model, ids, start_token=1, max_tokens=40, masked=masked)
        assert found.losses[stream] * found.n_tokens == pytest.approx(sum(expected), abs=1e-4 * max(1, len(ids)))
        assert [loss for one in found.windows for loss in one.losses_SN[stream]] == pytest.approx(expected, abs=1e-3)
    assert [id_ for window in found.windows for id_ in window.placed.token_ids] == ids
    for window in found.windows:
        weights = oracle.attention_weights(model, [1, *window.placed.token_ids])
        for head in HEADS:
            _require_most_attended(window, head, weights[head.layer][head.index].numpy())


def _require_most_attended(window: ExplainedWindow, head: Head, weights_TT: np.ndarray) -> None:
    for token in range(len(window.placed.token_ids)):
        row = weights_TT[token]
        sources = [source for source in window.sources(token) if head in source.weights]
        positions = [0 if source.token is None else source.token + 1 for source in sources]
        assert len(set(positions)) == len(positions) <= 3
        # ties may fall either way, so weights are compared and not their places
        told = [source.weights[head] for source in sources]
        highest = sorted(row[: token + 1], reverse=True)[: len(told)]
        assert sorted(told, reverse=True) == pytest.approx(highest, abs=1e-4)
        assert told == pytest.approx([row[position] for position in positions], abs=1e-4)
        assert min(3, int((row > 0.0101).sum())) <= len(told) <= int((row > 0.0099).sum())
        for source in sources:
            same = source.token is not None and window.placed.token_ids[source.token] == window.placed.token_ids[token]
            assert source.is_copied == same


def test_with_one_head_that_copies_the_raised_tokens_are_the_copied_ones_and_arrows_lead_to_their_sources() -> None:
    first, second = sentences()[0], sentences()[5]
    text = f"{first} {second} {first}"
    found = explain_text(engine("planted"), selector((PLANTED,), max_tokens=1000), text)
    [window] = found.windows
    ids = list(window.placed.token_ids)
    copied = {n: m for n in range(2, len(ids)) for m in range(2, n) if ids[m - 2 : m + 1] == ids[n - 2 : n + 1]}
    assert set(np.flatnonzero(window.rises_N > 1).tolist()) == set(copied)
    assert len(copied) > 10
    for token, place in copied.items():
        source = window.sources(token)[0]
        assert (source.token, source.is_copied) == (place, True)
        assert source.weights[PLANTED] > 0.45


def test_a_long_document_is_explained_in_part_and_says_so() -> None:
    text = " ".join(sentences()[:12])
    whole = explain_text(engine("llama"), selector(), text, n_windows=100)
    part = explain_text(engine("llama"), selector(), text, first_window=2, n_windows=2)
    assert whole.is_whole
    assert not part.is_whole
    assert part.n_windows == whole.n_windows > 4
    assert [window.placed.number for window in part.windows] == [2, 3]
    assert part.windows[0].placed.start == whole.windows[1].placed.ends[-1]
    np.testing.assert_allclose(part.windows[0].losses_SN, whole.windows[2].losses_SN, atol=1e-6)
    with pytest.raises(ValueError, match="the document has"):
        explain_text(engine("llama"), selector(), text, first_window=whole.n_windows)
