"""Detection of retrieval heads: how much each head copies from context on the probes, and which heads are chosen.

Definition of Wu et al. (arXiv 2404.15574). Shapes: P probes, L layers, H query heads, T tokens of the row, X answer
tokens of all its probes, C hidden size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from attninf_assets.influence.acceleration.peak import peak_flops
from attninf_assets.influence.copy_recorder import CopyRecorder
from attninf_assets.influence.detection import HeadDetection
from attninf_assets.influence.model.head import BASE, Head
from attninf_assets.influence.model.kernels import to_device
from attninf_assets.influence.model.loss import predicted_R
from attninf_assets.influence.model.packing import Pack, Window, pack
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.probes import Probe
from attninf_assets.influence.runtime.host_copy import Arriving, one_behind
from attninf_assets.influence.runtime.progress import OnProgress, ProgressClock, ignore_progress
from attninf_assets.influence.runtime.token_budget import TokenBudget, in_budget

SUCCESS = 0.5  # a probe counts if at least this share of its answer tokens are the argmax prediction
MIN_COUNTED = 0.25  # detection fails if fewer of the probes count
MIN_BEST_SCORE = 0.1  # Wu et al. call a head a retrieval head from here on
MIN_SEPARATION = 2.0  # mean retrieval score of the chosen heads over that of all others


def detect_retrieval_heads(
    model: StreamedModel,
    probes: Sequence[Probe],
    *,
    head_fraction: float,
    token_budget: TokenBudget,
    on_progress: OnProgress = ignore_progress,
) -> HeadDetection:
    """Score every head on the probes and choose the top `ceil(head_fraction × layers × heads)`.

    Raises `ValueError` where the base model retrieves on too few probes or the scores do not single out any heads.
    """
    copied_PLH, correct = [], []
    clock = ProgressClock("probes", len(probes), on_progress, peak_flops=peak_flops(model.device, model.product_type))

    def detect(batch: list[Probe]) -> Detected:
        return detect_on(model, batch)

    detections = in_budget(
        probes,
        detect,
        size=lambda p: len(p.token_ids),
        token_budget=token_budget,
        device=model.device,
        on_halved=clock.report,
    )
    for found in one_behind(detections):
        copied_PLH += found.copied_fractions()
        correct += found.correct_answers()
        clock.advance(len(found.probes), tokens=len(found.packed.input_ids_T), flops=found.flops)
    counted = np.array([np.mean(c) >= SUCCESS for c in correct])
    if counted.sum() < MIN_COUNTED * len(probes):
        raise ValueError(
            f"the base model retrieves on {counted.sum()} of {len(probes)} probes (at least {SUCCESS:.0%} of the "
            f"answer tokens right); at least {MIN_COUNTED:.0%} must count, or the heads would be chosen from noise: "
            "use a model that can retrieve, or shorter probes"
        )
    counted_PLH = np.stack(copied_PLH)[counted]
    scores_LH = counted_PLH.mean(axis=0)
    heads = choose_heads(scores_LH, head_fraction=head_fraction)
    check_singled_out(scores_LH, heads)
    return HeadDetection(
        scores_LH=scores_LH,
        deviations_LH=counted_PLH.std(axis=0),
        retrieval_heads=heads,
        n_probes=len(probes),
        n_counted=int(counted.sum()),
        token_accuracy=float(np.mean(np.concatenate(correct))),
        exact_match=float(np.mean([c.all() for c in correct])),
    )


def choose_heads(scores_LH: np.ndarray, *, head_fraction: float) -> tuple[Head, ...]:
    """The top `ceil(head_fraction × layers × heads)` heads, best first; ties go to the lower (layer, index)."""
    if not 0 < head_fraction <= 1:
        raise ValueError(f"head_fraction must be above 0 and at most 1, is {head_fraction}")
    n_chosen = math.ceil(Fraction(str(head_fraction)) * scores_LH.size)
    every = [Head(layer, index) for layer in range(scores_LH.shape[0]) for index in range(scores_LH.shape[1])]
    return tuple(sorted(every, key=lambda head: (-scores_LH[head.layer, head.index], head))[:n_chosen])


def check_singled_out(scores_LH: np.ndarray, heads: Sequence[Head]) -> None:
    """Raise `ValueError`, with what was seen, unless the chosen heads stand out from the others."""
    chosen = np.array([scores_LH[head.layer, head.index] for head in heads])
    best, worst = float(chosen.max()), float(chosen.min())
    n_others = scores_LH.size - len(heads)
    others = (float(scores_LH.sum()) - float(chosen.sum())) / n_others if n_others else 0.0
    seen = (
        f"retrieval scores of the {len(heads)} chosen heads run from {worst:.3f} to {best:.3f}, "
        f"the other {n_others} heads average {others:.3f}"
    )
    if best < MIN_BEST_SCORE:
        raise ValueError(f"no head retrieves: {seen}; a retrieval head scores at least {MIN_BEST_SCORE}")
    if worst <= 0:
        raise ValueError(
            f"only {int((chosen > 0).sum())} heads copy anything, fewer than asked: {seen}; lower head_fraction"
        )
    if float(chosen.mean()) < MIN_SEPARATION * others:
        raise ValueError(
            f"no heads are singled out: {seen}; their mean must be at least {MIN_SEPARATION} times the others'"
        )


def pack_probes(probes: Sequence[Probe]) -> Pack:
    """The probes packed back to back in one row. A probe carries its own start token."""
    windows = [Window(number, probe.token_ids[1:]) for number, probe in enumerate(probes)]
    return pack(windows, start_token=probes[0].token_ids[0])


def answer_rows(probes: Sequence[Probe], packed: Pack) -> torch.Tensor:
    """The positions of the row that predict the probes' answer tokens, probe by probe, int64 [X]."""
    return torch.cat(
        [
            torch.arange(start + p.answer_start - 1, start + p.answer_end - 1)
            for p, (start, _) in zip(probes, packed.bounds, strict=True)
        ]
    )


@dataclass(frozen=True)
class Detected:
    """What a batch of probes showed, on its way from the device."""

    probes: Sequence[Probe]
    packed: Pack
    copied_PLH: Arriving  # answer tokens that each head copies
    correct_X: Arriving  # bool, for the probes' answer tokens one after the other
    flops: float

    def copied_fractions(self) -> list[np.ndarray]:
        """Per probe: [layers, heads] fraction of the answer tokens copied."""
        return [
            copied.astype(np.float64) / probe.answer_length
            for copied, probe in zip(self.copied_PLH.numpy(), self.probes, strict=True)
        ]

    def correct_answers(self) -> list[np.ndarray]:
        """Per probe: which answer tokens are the base model's argmax prediction."""
        return np.split(self.correct_X.numpy(), np.cumsum([p.answer_length for p in self.probes])[:-1])


@torch.inference_mode()
def detect_on(model: StreamedModel, probes: Sequence[Probe]) -> Detected:
    """What every head copies on the probes, and what the base model gets right, in one pass over them together."""
    packed = pack_probes(probes)
    rows_X = answer_rows(probes, packed)
    recorder = CopyRecorder(model, probes, packed)
    hidden_TC = model.hidden_STC(packed, [BASE], recorder=recorder)[0]
    targets_X = to_device(packed.input_ids_T[rows_X + 1], model.device)
    correct_X = predicted_R(hidden_TC[to_device(rows_X, model.device)], model.model) == targets_X
    flops = model.flops.of(packed.lengths, [BASE], n_predicted=len(rows_X))
    return Detected(probes, packed, Arriving(recorder.copied_PLH), Arriving(correct_X), flops)
