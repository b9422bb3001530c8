"""Retrieval heads: how much each head copies from context on the probes, and which heads are chosen.

Definition of Wu et al. (arXiv 2404.15574). The query row is the one *before* an answer token, and the attended position
points at that token itself in the context. Shapes: P probes, S streams, H query heads, K key/value heads, T tokens of
the row, L tokens of one probe, N answer tokens, D head dimension, C hidden size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from attninf_assets.influence.loss import predicted_R
from attninf_assets.influence.masking import BASE, Head
from attninf_assets.influence.packing import Pack, Window, pack
from attninf_assets.influence.probes import Probe
from attninf_assets.influence.progress import OnProgress, ProgressClock, ignore_progress
from attninf_assets.influence.streams import StreamedModel

SUCCESS = 0.5  # a probe counts if at least this share of its answer tokens are the argmax prediction
MIN_COUNTED = 0.25  # detection fails if fewer of the probes count
MIN_BEST_SCORE = 0.1  # Wu et al. call a head a retrieval head from here on
MIN_SEPARATION = 2.0  # mean retrieval score of the chosen heads over that of all others


@dataclass(frozen=True)
class HeadDetection:
    """Retrieval scores of every head and the heads chosen from them."""

    scores_LH: np.ndarray  # float64: mean over counted probes of (answer tokens copied / answer tokens)
    deviations_LH: np.ndarray  # float64: standard deviation over counted probes
    retrieval_heads: tuple[Head, ...]  # best first
    n_probes: int
    n_counted: int  # probes on which the base model retrieves
    token_accuracy: float  # of the base model, over all probes' answer tokens
    exact_match: float  # probes with every answer token right


def detect_retrieval_heads(
    model: StreamedModel,
    probes: Sequence[Probe],
    *,
    head_fraction: float,
    token_budget: int,
    on_progress: OnProgress = ignore_progress,
) -> HeadDetection:
    """Score every head on the probes and choose the top `ceil(head_fraction × layers × heads)`.

    Raises `ValueError` where the base model retrieves on too few probes or the scores do not single out any heads.
    """
    copied_PLH, correct = [], []
    clock = ProgressClock("probes", len(probes), on_progress)
    for batch in probe_batches(probes, token_budget=token_budget):
        packed = pack_probes(batch)
        recorder = _CopyRecorder(model, batch, packed)
        hidden_TC = model.hidden_STC(packed, [BASE], recorder=recorder)[0]
        copied_PLH += recorder.copied_fractions()
        correct += _correct_answers(model, batch, packed, hidden_TC)
        clock.advance(len(batch), tokens=len(packed.input_ids_T))
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


def probe_batches(probes: Sequence[Probe], *, token_budget: int) -> list[list[Probe]]:
    """Consecutive probes whose tokens together stay within the budget, at least one probe each."""
    batches: list[list[Probe]] = []
    used = 0
    for probe in probes:
        if not batches or used + len(probe.token_ids) > token_budget:
            batches.append([])
            used = 0
        batches[-1].append(probe)
        used += len(probe.token_ids)
    return batches


def pack_probes(probes: Sequence[Probe]) -> Pack:
    """Probes back to back in one row. A probe carries its own start token."""
    windows = [Window(number, probe.token_ids[1:]) for number, probe in enumerate(probes)]
    return pack(windows, start_token=probes[0].token_ids[0])


def answer_rows(probes: Sequence[Probe], packed: Pack) -> torch.Tensor:
    """Positions of the row that predict the probes' answer tokens, probe by probe."""
    return torch.cat(
        [
            torch.arange(start + p.answer_start - 1, start + p.answer_end - 1)
            for p, (start, _) in zip(probes, packed.bounds, strict=True)
        ]
    )


def _correct_answers(
    model: StreamedModel, probes: Sequence[Probe], packed: Pack, hidden_TC: torch.Tensor
) -> list[np.ndarray]:
    with torch.inference_mode():
        rows = answer_rows(probes, packed)
        correct = (
            predicted_R(hidden_TC[rows.to(model.device)], model.model).cpu() == packed.input_ids_T[rows + 1]
        ).numpy()
    return np.split(correct, np.cumsum([p.answer_length for p in probes])[:-1])


class _CopyRecorder:
    """Counts, layer by layer during a forward pass, the answer tokens each head copies.

    Holds (heads, answer, length) logits at most, never length × length.
    """

    def __init__(self, model: StreamedModel, probes: Sequence[Probe], packed: Pack) -> None:
        self.probes = probes
        self.packed = packed
        self.copied_PLH = np.zeros((len(probes), model.n_layers, model.n_heads))

    def __call__(self, layer: int, query_SHTD: torch.Tensor, key_SKTD: torch.Tensor, window: int | None) -> None:
        n_heads, n_key_heads = query_SHTD.shape[1], key_SKTD.shape[1]
        for number, (probe, (start, _)) in enumerate(zip(self.probes, self.packed.bounds, strict=True)):
            first, end = start + probe.answer_start - 1, start + probe.answer_end - 1
            # Query rows [a_1 - 1, a_n - 1), keys up to the last of them; heads grouped by the key head they share.
            q = query_SHTD[0, :, first:end].reshape(n_key_heads, -1, query_SHTD.shape[-1])
            logits = q.float() @ key_SKTD[0, :, start:end].transpose(1, 2).float()
            logits_HNL = logits.reshape(n_heads, end - first, end - start)
            self.copied_PLH[number, layer] = _copied_H(logits_HNL, probe, window).cpu().numpy()

    def copied_fractions(self) -> list[np.ndarray]:
        """Per probe: [layers, heads] fraction of the answer tokens copied."""
        return [copied / p.answer_length for copied, p in zip(self.copied_PLH, self.probes, strict=True)]


def _copied_H(logits_HNL: torch.Tensor, probe: Probe, window: int | None) -> torch.Tensor:
    """How many answer tokens each head's most attended position holds, inside the queried value's span."""
    device = logits_HNL.device
    rows_N = torch.arange(probe.answer_start - 1, probe.answer_end - 1, device=device)
    keys_L = torch.arange(logits_HNL.shape[-1], device=device)
    distance_NL = rows_N[:, None] - keys_L[None, :]
    hidden_NL = distance_NL < 0 if window is None else (distance_NL < 0) | (distance_NL >= window)
    attended_HN = logits_HNL.masked_fill(hidden_NL, -torch.inf).argmax(dim=-1)
    ids_T = torch.tensor(probe.token_ids, device=device)
    in_span = (attended_HN >= probe.span_start) & (attended_HN < probe.span_end)
    return (in_span & (ids_T[attended_HN] == ids_T[rows_N + 1])).sum(dim=-1)
