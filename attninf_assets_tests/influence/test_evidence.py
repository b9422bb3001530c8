from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence import evidence as evidence_module
from attninf_assets.influence.detection import AnswerLoss, HeadEvidence
from attninf_assets.influence.evidence import AnswerLosses, answer_losses, draw_random_sets, gather_evidence
from attninf_assets.influence.model.head import BASE, Head, HeadSet
from attninf_assets.influence.model.packing import Pack
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.probes import Probe, build_probes
from attninf_assets.influence.runtime.progress import BudgetHalved, Progress, ProgressClock, ignore_progress
from attninf_assets.influence.runtime.token_budget import TokenBudget
from attninf_assets_tests.support import oracle
from attninf_assets_tests.support.planted_model import PLANTED, planted_model
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

N_LAYERS, N_HEADS = 6, 5
few_heads = st.sets(st.builds(Head, st.integers(0, N_LAYERS - 1), st.integers(0, N_HEADS - 1)), min_size=1, max_size=12)


@cache
def probes() -> tuple[Probe, ...]:
    return tuple(build_probes(sentences(), tiny_text_tokenizer(), start_token=1, n_probes=3, max_tokens=600, seed=1))


def gathered(
    *heads: Head, n_random_sets: int = 3, reports: list[Progress | BudgetHalved] | None = None
) -> HeadEvidence:
    return gather_evidence(
        StreamedModel(planted_model()),
        probes(),
        heads,
        mask="uniform",
        n_random_sets=n_random_sets,
        n_audit_probes=1,
        seed=0,
        token_budget=TokenBudget(4096),
        on_progress=ignore_progress if reports is None else reports.append,
    )


@given(heads=few_heads, seed=st.integers(0, 1000))
def test_random_sets_are_as_large_as_the_chosen_one_and_hold_none_of_it(heads: set[Head], seed: int) -> None:
    for drawn in draw_random_sets(sorted(heads), n_layers=N_LAYERS, n_heads=N_HEADS, n_sets=4, seed=seed):
        assert len(drawn) == len(heads)
        assert not drawn & heads
        assert all(0 <= h.layer < N_LAYERS and 0 <= h.index < N_HEADS for h in drawn)


@given(heads=few_heads, seed=st.integers(0, 1000))
def test_random_sets_have_the_chosen_ones_layer_counts_where_the_layers_have_heads_left(
    heads: set[Head], seed: int
) -> None:
    wanted = Counter(head.layer for head in heads)
    enough_left = all(2 * n <= N_HEADS for n in wanted.values())
    for drawn in draw_random_sets(sorted(heads), n_layers=N_LAYERS, n_heads=N_HEADS, n_sets=4, seed=seed):
        found = Counter(head.layer for head in drawn)
        assert all(found[layer] >= min(n, N_HEADS - n) for layer, n in wanted.items())
        assert not enough_left or found == wanted


def test_random_sets_follow_from_the_seed_and_differ_from_each_other() -> None:
    def draw(seed: int) -> list[HeadSet]:
        return draw_random_sets([Head(1, 0), Head(2, 3)], n_layers=6, n_heads=16, n_sets=5, seed=seed)

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(set(draw(1))) > 1


def test_answer_losses_equal_the_oracles_mean_over_answer_tokens() -> None:
    streams: list[HeadSet] = [BASE, frozenset({PLANTED}), frozenset({Head(0, 0), Head(1, 1)})]
    found = answer_losses(
        StreamedModel(planted_model()),
        probes(),
        streams,
        mask="uniform",
        token_budget=TokenBudget(2000),
        clock=ProgressClock("", 0, ignore_progress),
    ).means()
    for heads, answer in zip(streams, found, strict=True):
        masked = frozenset((head.layer, head.index) for head in heads)
        losses: list[float] = []
        for p in probes():
            window = oracle.window_losses(planted_model(), p.token_ids[1:], start_token=1, masked=masked)
            losses += window[p.answer_start - 1 :]  # without a loss for the start token
        assert answer.loss == pytest.approx(oracle.mean(losses), abs=1e-4)


def test_means_over_the_first_probes_are_those_of_a_pass_over_them_alone() -> None:
    def answers(some: tuple[Probe, ...], *, tokens: int) -> AnswerLosses:
        clock = ProgressClock("", 0, ignore_progress)
        streams: list[HeadSet] = [BASE, frozenset({PLANTED}), BASE]
        return answer_losses(
            StreamedModel(planted_model()), some, streams, mask="uniform", token_budget=TokenBudget(tokens), clock=clock
        )

    together, alone = answers(probes(), tokens=2000), answers(probes()[:2], tokens=1)
    for found, expected in zip(together.means(first=2), alone.means(), strict=True):
        assert found.loss == pytest.approx(expected.loss, abs=1e-5)
        assert found.token_accuracy == expected.token_accuracy
    assert together.means()[0] == together.means()[2] != together.means(first=2)[0]


def test_a_head_of_several_suspect_sets_is_audited_once_and_the_number_in_a_pass_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Layer 1 has two heads beside the chosen ones, so that every random set is the same and is suspect."""
    passes: list[Sequence[HeadSet]] = []
    own = StreamedModel.answers_SR

    def noted(self: StreamedModel, packed: Pack, rows_R: torch.Tensor, streams: Sequence[HeadSet], **how: Any) -> Any:
        passes.append(streams)
        return own(self, packed, rows_R, streams, **how)

    monkeypatch.setattr(StreamedModel, "answers_SR", noted)
    together = gathered(Head(1, 0), Head(1, 1))
    single = [heads for streams in passes for heads in streams if len(heads) == 1]
    assert len(single) == len(set(single)) >= 2
    passes.clear()
    monkeypatch.setattr(evidence_module, "AT_ONCE", 1)
    assert gathered(Head(1, 0), Head(1, 1)) == together
    assert len([streams for streams in passes if len(streams) == 1]) == len(single)


def test_masking_the_planted_head_costs_the_answers_and_random_heads_cost_nothing() -> None:
    evidence = gathered(PLANTED)
    assert evidence.base.token_accuracy > 0.7
    assert evidence.reference.token_accuracy < 0.2
    assert evidence.effect > 1
    assert abs(evidence.random_effect) < 0.01
    assert evidence.heads_matter
    assert len(evidence.random_sets) == 3
    assert evidence.n_probes == 3
    assert evidence.dominating == (), "a set of one head has no head that dominates the others"


def test_masking_idle_heads_does_not_count_as_evidence() -> None:
    assert not gathered(Head(1, 0)).heads_matter


def test_a_head_that_alone_carries_the_effect_is_named() -> None:
    [line] = gathered(PLANTED, Head(1, 0)).dominating
    assert line == f"{PLANTED} alone carries 100% of the effect of the retrieval heads"


def test_a_head_that_alone_carries_a_random_set_is_named_with_the_set() -> None:
    evidence = gathered(Head(1, 0), Head(1, 1))  # layer 1 has only the planted head and one more to draw from
    assert not evidence.heads_matter
    assert [line for line in evidence.dominating if "retrieval heads" not in line] == [
        f"{PLANTED} alone carries 100% of the effect of random set {n}" for n in (1, 2, 3)
    ]


def test_streams_that_do_not_fit_into_memory_together_are_computed_in_parts() -> None:
    streams: list[HeadSet] = [BASE, frozenset({PLANTED}), frozenset({Head(0, 0)}), frozenset({Head(1, 1)})]
    model = StreamedModel(planted_model())

    def answers() -> list[AnswerLoss]:
        clock = ProgressClock("", 0, ignore_progress)
        found = answer_losses(model, probes(), streams, mask="uniform", token_budget=TokenBudget(2000), clock=clock)
        return found.means()

    expected = answers()
    n_streams: list[int] = []

    def holds_two(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        n_streams.append(args[0].shape[0])
        if n_streams[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    last = list(model.model.base_model.layers)[-1]
    with last.mlp.register_forward_pre_hook(holds_two):
        found = answers()
    assert max(n_streams) == 4
    assert [loss.loss for loss in found] == pytest.approx([loss.loss for loss in expected], abs=1e-5)
    assert [loss.token_accuracy for loss in found] == [loss.token_accuracy for loss in expected]


@pytest.mark.parametrize(
    ("reference", "controls", "matters"),
    [
        (2.5, (0.6, 9.0, 0.7), True),  # the median, not the mean: one wild set does not spoil the evidence
        (2.5, (2.1, 0.5, 2.1), False),  # 2.0 above base against 1.6: not far above
        (0.55, (0.5, 0.5, 0.5), False),  # 0.05 nats are no effect
        (2.5, (0.4, 0.3, 0.2), True),  # random masking that helps counts as no effect
        (float("nan"), (0.5, 0.5, 0.5), False),
    ],
)
def test_heads_matter_if_their_effect_is_far_above_the_median_random_sets(
    reference: float, controls: tuple[float, ...], matters: bool
) -> None:
    answers = tuple(AnswerLoss(loss, 0.5) for loss in controls)
    evidence = HeadEvidence(AnswerLoss(0.5, 0.9), AnswerLoss(reference, 0.1), answers, (), 1)
    assert evidence.heads_matter is matters


def test_progress_counts_every_masked_pass_and_every_audited_head() -> None:
    reports: list[Progress | BudgetHalved] = []
    gathered(PLANTED, Head(1, 0), n_random_sets=2, reports=reports)
    last = {r.unit: (r.done, r.total) for r in reports if isinstance(r, Progress)}
    assert last == {"masked passes over probes": (12, 12), "passes over probes with a single head masked": (2, 2)}
