"""Measurement of how much masking the chosen heads raises the probes' loss, against masking others of their layers.

One random control proves nothing: a single head can carry it. So several equal-sized sets are drawn from the same
layers, their *median* is what the retrieval heads are held against, and single heads that alone carry most of an effect
are named. Head sets are scored many at once, so that they share what they have in common (`stream_tree`). Shapes: S
streams, P probes.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
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
AT_ONCE = 16  # single heads per pass: on CUDA as many as probes of 4,096 tokens fill the default budget with


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
    found = answer_losses(model, probes, sets, mask=mask, token_budget=token_budget, clock=clock)
    base, reference, *controls = found.means()
    audited = found.means(first=n_audit_probes)
    suspects = {"the retrieval heads": (frozenset(heads), audited[1])}
    for number, control in enumerate(controls, start=1):
        if control.loss - base.loss > DOMINATES * (reference.loss - base.loss):
            suspects[f"random set {number}"] = random_sets[number - 1], audited[1 + number]
    dominating = _dominating(
        model,
        probes[:n_audit_probes],
        suspects,
        base=audited[0],
        mask=mask,
        token_budget=token_budget,
        on_progress=on_progress,
    )
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


@dataclass(frozen=True)
class AnswerLosses:
    """What streams lost on the answers of probes, probe by probe."""

    loss_SP: npt.NDArray[np.float64]  # sums over the answer's tokens, nats
    right_SP: npt.NDArray[np.int64]  # answer tokens that are the argmax prediction
    tokens_P: npt.NDArray[np.int64]  # of the answer

    def means(self, *, first: int | None = None) -> list[AnswerLoss]:
        """The mean loss and accuracy of each stream over the answer tokens of all probes, or of the first few."""
        n_tokens = int(self.tokens_P[:first].sum())
        loss_S, right_S = self.loss_SP[:, :first].sum(axis=1), self.right_SP[:, :first].sum(axis=1)
        return [
            AnswerLoss(float(loss) / n_tokens, float(right) / n_tokens)
            for loss, right in zip(loss_S, right_S, strict=True)
        ]


def answer_losses(
    model: StreamedModel,
    probes: Sequence[Probe],
    streams: Sequence[HeadSet],
    *,
    mask: Mask,
    token_budget: TokenBudget,
    clock: ProgressClock,
) -> AnswerLosses:
    """The losses on the probes' answers for each stream, all streams in one pass over each batch of probes."""
    tokens_P = np.array([probe.answer_length for probe in probes])
    losses: list[npt.NDArray[np.float64]] = []  # one [S] for each probe
    right: list[npt.NDArray[np.int64]] = []
    n_rows = model.tree(streams).n_rows[-1]

    def answer(batch: list[Probe]) -> tuple[list[Probe], Arriving, Arriving]:
        losses_SR, correct_SR = _answers(model, batch, streams, mask=mask)
        return batch, Arriving(losses_SR), Arriving(correct_SR)

    def size(probe: Probe) -> int:  # a budget's tokens are tokens of two rows
        return -(-len(probe.token_ids) * n_rows // 2)

    answers = in_budget(
        probes, answer, size=size, token_budget=token_budget, device=model.device, on_halved=clock.report
    )
    for batch, losses_SR, correct_SR in one_behind(answers):
        ends = np.cumsum([probe.answer_length for probe in batch])[:-1]
        losses += [part.sum(axis=1) for part in np.split(losses_SR.numpy().astype(np.float64), ends, axis=1)]
        right += [part.sum(axis=1) for part in np.split(correct_SR.numpy(), ends, axis=1)]
        clock.advance(len(batch) * len(streams), tokens=len(streams) * sum(len(p.token_ids) for p in batch))
    return AnswerLosses(np.stack(losses, axis=1), np.stack(right, axis=1), tokens_P)


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
    suspects: Mapping[str, tuple[HeadSet, AnswerLoss]],
    *,
    base: AnswerLoss,
    mask: Mask,
    token_budget: TokenBudget,
    on_progress: OnProgress,
) -> list[str]:
    """A line for every head that alone, on these probes, has more than `DOMINATES` of the effect of masking its set.

    `suspects` are head sets by name, with their losses on these probes, `base` is the base model's. A head is computed
    once, however many sets hold it; the heads of a pass are neighbours in depth, and share the trunk below them.
    """
    suspects = {
        name: (set_, loss) for name, (set_, loss) in suspects.items() if len(set_) > 1 and loss.loss > base.loss
    }
    heads = sorted(frozenset[Head]().union(*(set_ for set_, _ in suspects.values())))
    clock = ProgressClock("passes over probes with a single head masked", len(probes) * len(heads), on_progress)
    alone: dict[Head, AnswerLoss] = {}
    for group in np.array_split(np.arange(len(heads)), -(-len(heads) // AT_ONCE)) if heads else []:
        members = [heads[number] for number in group]
        singles: list[HeadSet] = [frozenset({head}) for head in members]
        found = answer_losses(model, probes, singles, mask=mask, token_budget=token_budget, clock=clock)
        alone.update(zip(members, found.means(), strict=True))
    shares = [
        (name, head, (alone[head].loss - base.loss) / (loss.loss - base.loss))
        for name, (set_, loss) in suspects.items()
        for head in sorted(set_)
    ]
    return [
        f"{head} alone carries {share:.0%} of the effect of {name}" for name, head, share in shares if share > DOMINATES
    ]
