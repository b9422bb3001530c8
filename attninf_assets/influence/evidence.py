"""Measurement of how much masking the chosen heads raises the probes' loss, against masking others of their layers.

One random control proves nothing: a single head can carry it. So several equal-sized sets are drawn from the same
layers, their *median* is what the retrieval heads are held against, and single heads that alone carry most of an effect
are named.
"""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from attninf_assets.influence.detection import AnswerLoss, HeadEvidence
from attninf_assets.influence.heads import answer_rows, pack_probes
from attninf_assets.influence.model.head import BASE, Head, HeadSet, Mask
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.probes import Probe
from attninf_assets.influence.runtime.host_copy import Arriving, one_behind
from attninf_assets.influence.runtime.progress import OnProgress, ProgressClock, ignore_progress
from attninf_assets.influence.runtime.token_budget import TokenBudget, in_budget, is_out_of_memory

DOMINATES = 0.5  # a head whose own effect is more than this share of its set's is named
_AUDITED_AT_ONCE = 4  # streams per pass; neighbours in depth, so that they share most of the trunk


def gather_evidence(
    model: StreamedModel,
    probes: Sequence[Probe],
    heads: Sequence[Head],
    *,
    mask: Mask,
    n_random_sets: int,
    n_audit_probes: int,
    seed: int,
    token_budget: TokenBudget,
    on_progress: OnProgress = ignore_progress,
) -> HeadEvidence:
    """Answer losses of the base model, the reference model and `n_random_sets` random sets on the probes.

    On the first `n_audit_probes` of them single heads are audited: every retrieval head, and every head of a random set
    whose effect is more than half the retrieval heads'.
    """
    random_sets = draw_random_sets(
        heads, n_layers=model.n_layers, n_heads=model.n_heads, n_sets=n_random_sets, seed=seed
    )
    sets = [BASE, frozenset(heads), *random_sets]
    clock = ProgressClock("masked passes over probes", len(probes) * len(sets), on_progress)
    base, reference, *controls = answer_losses(model, probes, sets, mask=mask, token_budget=token_budget, clock=clock)
    effect = reference.loss - base.loss
    suspects: list[tuple[str, HeadSet]] = [("the retrieval heads", frozenset(heads))]
    for number, (control, loss) in enumerate(zip(random_sets, controls, strict=True), start=1):
        if loss.loss - base.loss > DOMINATES * effect:
            suspects.append((f"random set {number}", control))
    audited = probes[:n_audit_probes]
    n_audits = sum(len(set_) for _, set_ in suspects)
    clock = ProgressClock("single heads audited", n_audits, on_progress)
    dominating = [
        line
        for name, heads_ in suspects
        for line in _dominating(model, audited, name, heads_, mask=mask, token_budget=token_budget, clock=clock)
    ]
    return HeadEvidence(base, reference, tuple(controls), tuple(dominating), len(probes))


def draw_random_sets(heads: Sequence[Head], *, n_layers: int, n_heads: int, n_sets: int, seed: int) -> list[HeadSet]:
    """Random head sets as large as `heads`, none of which contains any of them; as many per layer as `heads` has there.

    Where a layer has too few others, the remainder comes from any layer.
    """
    chosen = set(heads)
    per_layer = Counter(head.layer for head in heads)
    everyone = [Head(layer, index) for layer in range(n_layers) for index in range(n_heads)]
    others = [head for head in everyone if head not in chosen]
    sets = []
    for number in range(n_sets):
        rng = random.Random(f"attninf random heads {seed} {number}")  # noqa: S311
        drawn: set[Head] = set()
        for layer, wanted in sorted(per_layer.items()):
            here = [head for head in others if head.layer == layer]
            drawn.update(rng.sample(here, min(wanted, len(here))))
        rest = [head for head in others if head not in drawn]
        drawn.update(rng.sample(rest, min(len(heads) - len(drawn), len(rest))))
        sets.append(frozenset(drawn))
    return sets


def answer_losses(
    model: StreamedModel,
    probes: Sequence[Probe],
    streams: Sequence[HeadSet],
    *,
    mask: Mask,
    token_budget: TokenBudget,
    clock: ProgressClock,
) -> list[AnswerLoss]:
    """The mean answer loss and token accuracy over the probes, for each stream."""
    loss_S, right_S = np.zeros(len(streams)), np.zeros(len(streams))
    n_answer_tokens = 0

    def answer(batch: list[Probe]) -> tuple[list[Probe], Arriving, Arriving]:
        losses_SR, correct_SR = _answers(model, batch, streams, mask=mask)
        return batch, Arriving(losses_SR), Arriving(correct_SR)

    def size(probe: Probe) -> int:  # a budget's tokens are tokens of two streams
        return -(-len(probe.token_ids) * len(streams) // 2)

    answers = in_budget(
        probes, answer, size=size, token_budget=token_budget, device=model.device, on_halved=clock.report
    )
    for batch, losses_SR, correct_SR in one_behind(answers):
        loss_S += losses_SR.numpy().astype(np.float64).sum(axis=1)
        right_S += correct_SR.numpy().sum(axis=1)
        n_answer_tokens += losses_SR.numpy().shape[1]
        clock.advance(len(batch) * len(streams), tokens=len(streams) * sum(len(p.token_ids) for p in batch))
    return [
        AnswerLoss(float(x) / n_answer_tokens, float(r) / n_answer_tokens) for x, r in zip(loss_S, right_S, strict=True)
    ]


def _answers(
    model: StreamedModel, probes: Sequence[Probe], streams: Sequence[HeadSet], *, mask: Mask
) -> tuple[torch.Tensor, torch.Tensor]:
    """`answers_SR` of the probes; a single probe whose streams do not fit into memory together goes in two halves."""
    packed = pack_probes(probes)
    try:
        return model.answers_SR(packed, answer_rows(probes, packed), streams, mask=mask)
    except (RuntimeError, MemoryError) as error:
        if len(probes) > 1 or len(streams) == 1 or not is_out_of_memory(error):
            raise
    half = len(streams) // 2
    parts = [_answers(model, probes, some, mask=mask) for some in (streams[:half], streams[half:])]
    losses, correct = (torch.cat(of_parts) for of_parts in zip(*parts, strict=True))
    return losses, correct


def _dominating(
    model: StreamedModel,
    probes: Sequence[Probe],
    name: str,
    heads: HeadSet,
    *,
    mask: Mask,
    token_budget: TokenBudget,
    clock: ProgressClock,
) -> list[str]:
    """A line for every head that alone, on these probes, has more than `DOMINATES` of the effect of masking all."""
    members = sorted(heads)
    quiet = ProgressClock("", 0, ignore_progress)
    base, together = answer_losses(model, probes, [BASE, heads], mask=mask, token_budget=token_budget, clock=quiet)
    whole = together.loss - base.loss
    lines = []
    for first in range(0, len(members), _AUDITED_AT_ONCE):
        group = members[first : first + _AUDITED_AT_ONCE]
        singles: list[HeadSet] = [frozenset({head}) for head in group]
        alone = answer_losses(model, probes, singles, mask=mask, token_budget=token_budget, clock=quiet)
        clock.advance(len(group), tokens=len(group) * sum(len(p.token_ids) for p in probes))
        for head, loss in zip(group, alone, strict=True):
            share = (loss.loss - base.loss) / whole if whole > 0 else 0.0
            if len(members) > 1 and share > DOMINATES:
                lines.append(f"{head} alone carries {share:.0%} of the effect of {name}")
    return lines
