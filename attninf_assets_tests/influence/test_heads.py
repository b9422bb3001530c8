import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attninf_assets.influence.copy_recorder import AnswerInContext
from attninf_assets.influence.detection import HeadDetection
from attninf_assets.influence.heads import check_singled_out, choose_heads, detect_retrieval_heads
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.model.text_tokenizer import TextTokenizer
from attninf_assets.influence.probes import Probe, build_probes
from attninf_assets.influence.runtime.progress import BudgetHalved, OnProgress, Progress, ignore_progress
from attninf_assets.influence.runtime.token_budget import TokenBudget
from attninf_assets_tests.support import oracle
from attninf_assets_tests.support.planted_model import PLANTED, planted_model
from attninf_assets_tests.support.tiny_models import SUPPORTED, tiny_model
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

shapes = st.tuples(st.integers(1, 6), st.integers(1, 8))
scores = hnp.arrays(np.float64, shapes, elements=st.integers(0, 12).map(lambda n: n / 12))
fractions = st.integers(1, 100).map(lambda percent: percent / 100)


def probes_of(n_probes: int, *, seed: int = 3) -> list[Probe]:
    return build_probes(sentences(), tiny_text_tokenizer(), start_token=1, n_probes=n_probes, max_tokens=700, seed=seed)


def span(probe: Probe) -> dict[str, int]:
    return {"answer_start": probe.answer_start, "answer_end": probe.answer_end}


# Choosing


@given(scores_LH=scores, fraction=fractions)
def test_exactly_the_fraction_rounded_up_is_chosen_and_no_other_head_scores_more(
    scores_LH: np.ndarray, fraction: float
) -> None:
    chosen = choose_heads(scores_LH, head_fraction=fraction)
    assert len(set(chosen)) == len(chosen) == math.ceil(Fraction(round(100 * fraction), 100) * scores_LH.size)
    last = chosen[-1]
    for layer, index in np.ndindex(scores_LH.shape):
        if Head(layer, index) not in chosen:
            beaten = scores_LH[layer, index] - scores_LH[last.layer, last.index]
            assert beaten < 0 or (beaten == 0 and Head(layer, index) > last), "ties go to the lower (layer, index)"


@given(scores_LH=scores, fraction=fractions)
def test_chosen_heads_come_best_first(scores_LH: np.ndarray, fraction: float) -> None:
    ranks = [(-scores_LH[h.layer, h.index], h) for h in choose_heads(scores_LH, head_fraction=fraction)]
    assert ranks == sorted(ranks)


@given(scores_LH=scores, fraction=fractions)
def test_only_the_order_of_the_scores_matters(scores_LH: np.ndarray, fraction: float) -> None:
    chosen = choose_heads(scores_LH, head_fraction=fraction)
    assert choose_heads(np.exp(3 * scores_LH) - 7, head_fraction=fraction) == chosen


def test_a_fraction_that_floats_cannot_hold_is_meant_as_written() -> None:
    # 0.07 * 100 is 7.000000000000001 in floating point; eight heads would be one too many.
    assert len(choose_heads(np.zeros((10, 10)), head_fraction=0.07)) == 7


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"head_fraction .* is {fraction}"):
        choose_heads(np.zeros((2, 2)), head_fraction=fraction)


# Being singled out


@pytest.mark.parametrize(
    ("scores_LH", "n_chosen", "message"),
    [
        ([[0.0, 0.0], [0.0, 0.0]], 1, r"no head retrieves: .* run from 0\.000 to 0\.000"),
        ([[0.09, 0.0], [0.0, 0.0]], 1, r"no head retrieves: .* to 0\.090, the other 3 heads average 0\.000"),
        ([[0.9, 0.0], [0.0, 0.0]], 2, "only 1 heads copy anything, fewer than asked"),
        ([[0.5, 0.3], [0.3, 0.3]], 1, r"no heads are singled out: .* the other 3 heads average 0\.300"),
    ],
)
def test_scores_that_single_out_no_heads_fail_and_say_what_was_seen(
    scores_LH: list[list[float]], n_chosen: int, message: str
) -> None:
    array = np.array(scores_LH)
    heads = choose_heads(array, head_fraction=n_chosen / array.size)
    with pytest.raises(ValueError, match=message):
        check_singled_out(array, heads)


def test_scores_that_single_out_heads_pass() -> None:
    array = np.array([[0.8, 0.1], [0.2, 0.1]])
    check_singled_out(array, choose_heads(array, head_fraction=0.25))
    check_singled_out(np.ones((1, 1)), [Head(0, 0)])


# Detecting


def detected(
    probes: Sequence[Probe],
    *,
    model: Any = None,
    head_fraction: float = 0.1,
    token_budget: int = 1500,
    on_progress: OnProgress = ignore_progress,
) -> HeadDetection:
    """Heads of the model, the planted one unless another is given."""
    return detect_retrieval_heads(
        StreamedModel(planted_model() if model is None else model),
        probes,
        head_fraction=head_fraction,
        token_budget=TokenBudget(token_budget),
        on_progress=on_progress,
    )


@pytest.fixture(scope="module")
def detection() -> HeadDetection:
    return detect_retrieval_heads(
        StreamedModel(planted_model()), probes_of(6), head_fraction=0.1, token_budget=TokenBudget(1500)
    )


def test_the_planted_head_is_found_and_no_other_comes_near(detection: HeadDetection) -> None:
    assert detection.retrieval_heads == (PLANTED,)
    others = np.delete(detection.scores_LH.flatten(), 4 * PLANTED.layer + PLANTED.index)
    assert detection.scores_LH[PLANTED.layer, PLANTED.index] > 0.7
    assert others.max() < 0.1


def test_probes_on_which_the_model_retrieves_count(detection: HeadDetection) -> None:
    expected = [oracle.retrieves(planted_model(), p.token_ids, **span(p)) for p in probes_of(6)]
    assert detection.n_probes == 6
    assert detection.n_counted == sum(expected) >= 5
    assert 0.7 < detection.token_accuracy < 1
    assert detection.exact_match == 0, "no bigram before the answer's first token predicts it"


def test_detection_equals_the_oracle_on_the_planted_model(detection: HeadDetection) -> None:
    counted = [p for p in probes_of(6) if oracle.retrieves(planted_model(), p.token_ids, **span(p))]
    each_PLH = np.array(
        [oracle.retrieval_scores(planted_model(), p.token_ids, span_start=p.span_start, **span(p)) for p in counted]
    )
    np.testing.assert_allclose(detection.scores_LH, each_PLH.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(detection.deviations_LH, each_PLH.std(axis=0), atol=1e-12)


@pytest.mark.parametrize("name", SUPPORTED)
def test_per_probe_scores_equal_the_oracle_on_every_architecture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random heads copy little, so the object is a short one whose few tokens repeat: hits are common."""
    from attninf_assets.influence import heads

    monkeypatch.setattr(heads, "SUCCESS", -1.0)
    monkeypatch.setattr(heads, "check_singled_out", lambda *_: None)
    generator = torch.Generator().manual_seed(1)
    value = torch.randint(3, 5, (12,), generator=generator).tolist()
    probes = [
        Probe("", (1, *filler, *value, 9, *value), 2 + len(filler) + 12, 26 + len(filler), 1 + len(filler), 1, 0)
        for filler in ([7, 8, 7], [8])
    ]
    model = tiny_model(name)
    found = detect_retrieval_heads(StreamedModel(model), probes, head_fraction=0.5, token_budget=TokenBudget(1000))
    expected_PLH = [oracle.retrieval_scores(model, p.token_ids, span_start=p.span_start, **span(p)) for p in probes]
    np.testing.assert_allclose(found.scores_LH, np.mean(expected_PLH, axis=0), atol=1e-12)
    assert (found.scores_LH > 0).sum() >= 3


def test_detection_does_not_depend_on_how_probes_are_batched(detection: HeadDetection) -> None:
    alone = detect_retrieval_heads(
        StreamedModel(planted_model()), probes_of(6), head_fraction=0.1, token_budget=TokenBudget(1)
    )
    np.testing.assert_array_equal(alone.scores_LH, detection.scores_LH)
    assert alone.token_accuracy == detection.token_accuracy


def test_a_random_model_retrieves_on_no_probe_and_detection_says_so() -> None:
    with pytest.raises(ValueError, match=r"retrieves on 0 of 4 probes .* at least 25% must count"):
        detect_retrieval_heads(
            StreamedModel(tiny_model("llama")), probes_of(4), head_fraction=0.1, token_budget=TokenBudget(1500)
        )


def test_asking_for_more_heads_than_retrieve_fails_and_says_so() -> None:
    with pytest.raises(ValueError, match=r"only \d heads copy anything, fewer than asked: .* the 8 chosen heads"):
        detect_retrieval_heads(
            StreamedModel(planted_model()), probes_of(2), head_fraction=1.0, token_budget=TokenBudget(1500)
        )


def test_the_gate_opens_at_a_quarter_of_the_probes() -> None:
    model = StreamedModel(planted_model())
    good = probes_of(4)
    # The same probes with the queried sentence's tokens replaced in the object: the answer is nowhere to be found.
    lost = [unanswerable(p) for p in probes_of(13, seed=4)]
    detection = detect_retrieval_heads(model, [*good, *lost[:12]], head_fraction=0.1, token_budget=TokenBudget(3000))
    assert (detection.n_counted, detection.n_probes) == (4, 16)
    assert detection.scores_LH[PLANTED.layer, PLANTED.index] > 0.7, "probes that do not count do not dilute the score"
    with pytest.raises(ValueError, match="retrieves on 4 of 17 probes"):
        detect_retrieval_heads(model, [*good, *lost], head_fraction=0.1, token_budget=TokenBudget(3000))


def unanswerable(probe: Probe) -> Probe:
    """The probe with another answer than the object holds: a run of one rare token after another."""
    ids = list(probe.token_ids)
    ids[probe.answer_start : probe.answer_end] = range(300, 300 + probe.answer_length)
    return Probe(probe.text, tuple(ids), probe.answer_start, probe.answer_end, probe.span_start, probe.n_pairs, 0)


def test_progress_counts_every_probe() -> None:
    reports: list[Progress | BudgetHalved] = []
    detect_retrieval_heads(
        StreamedModel(planted_model()),
        probes_of(3),
        head_fraction=0.1,
        token_budget=TokenBudget(700),
        on_progress=reports.append,
    )
    last = reports[-1]
    assert isinstance(last, Progress)
    assert (last.unit, last.done, last.total) == ("probes", 3, 3)
    assert last.peak_share is not None
    assert last.tokens == sum(len(p.token_ids) for p in probes_of(3))


# The off-by-one


def seen_by(probe: Probe) -> AnswerInContext:
    return AnswerInContext.of(probe, torch.tensor(probe.token_ids))


def copied(attended: list[int], probe: Probe, *, window: int | None = None) -> int:
    """Tokens copied by a head whose rows, one per answer token, look at the given positions of the probe."""
    logits_HNL = torch.zeros(1, len(attended), len(probe.token_ids))
    for row, position in enumerate(attended):
        logits_HNL[0, row, position] = 5
    return int(seen_by(probe).copied_H(logits_HNL[:, :, :-1], window)[0])


SMALL = Probe("", (1, 20, 21, 22, 23, 9, 20, 21, 22, 23), 6, 10, 1, 1, 0)


def test_a_head_copies_when_the_row_before_an_answer_token_looks_at_that_token_in_the_object() -> None:
    assert copied([1, 2, 3, 4], SMALL) == 4
    assert copied([1, 2, 0, 5], SMALL) == 2


def test_looking_at_the_token_of_the_row_itself_is_no_copying() -> None:
    assert copied([5, 1, 2, 3], SMALL) == 0, "the earlier occurrence of the row's own token"
    assert copied([5, 6, 7, 8], SMALL) == 0, "the row itself"


def test_looking_at_the_answers_token_outside_the_span_is_no_copying() -> None:
    probe = Probe("", (1, 20, 9, 20, 20, 9, 20, 20), 6, 8, 3, 1, 0)
    assert copied([3, 4], probe) == 2
    assert copied([4, 3], probe) == 2, "equal tokens within the span are the same token"
    assert copied([1, 1], probe) == 0
    just_behind = Probe("", (1, 20, 21, 21, 9, 20, 21), 5, 7, 1, 1, 0)
    assert copied([1, 2], just_behind) == 2
    assert copied([1, 3], just_behind) == 1


def test_what_a_row_cannot_see_is_not_attended_to() -> None:
    probe = Probe("", (1, 20, 21, 9, 20, 21), 4, 6, 1, 1, 0)
    logits_HNL = torch.zeros(1, 2, 5)
    logits_HNL[0, 0, 4] = 9  # the future of the first row
    logits_HNL[0, 0, 1] = logits_HNL[0, 1, 2] = 5
    assert seen_by(probe).copied_H(logits_HNL, None).tolist() == [2]
    assert seen_by(probe).copied_H(logits_HNL, 3).tolist() == [2]
    assert seen_by(probe).copied_H(logits_HNL, 2).tolist() == [0], "outside the sliding window"


@pytest.mark.sample
def test_detection_equals_the_oracle_on_a_real_model(
    sample_model: Any, sample_tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = build_probes(
        sentences(),
        sample_tokenizer,
        start_token=sample_tokenizer.start_token,
        n_probes=2,
        max_tokens=450,
        seed=0,
    )
    found = detect_retrieval_heads(
        StreamedModel(sample_model), probes, head_fraction=0.05, token_budget=TokenBudget(1024)
    )
    counted = [oracle.retrieves(sample_model, p.token_ids, **span(p)) for p in probes]
    expected_PLH = np.array(
        [
            oracle.retrieval_scores(sample_model, p.token_ids, span_start=p.span_start, **span(p))
            for p, counts in zip(probes, counted, strict=True)
            if counts
        ]
    )
    assert found.n_counted == sum(counted) >= 1
    # One argmax in a few thousand may fall the other way between two float32 kernels.
    assert np.abs(found.scores_LH - expected_PLH.mean(axis=0)).max() <= 1 / min(p.answer_length for p in probes)
    assert (np.abs(found.scores_LH - expected_PLH.mean(axis=0)) > 1e-9).mean() <= 0.01
    assert len(found.retrieval_heads) == 14
