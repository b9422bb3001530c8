"""What head detection and its evidence will take, told before they begin."""

import math
import time
from collections.abc import Iterator, Sequence

import torch

from attninf_assets.influence.detection import DetectionPrice
from attninf_assets.influence.evidence import AT_ONCE, draw_random_sets
from attninf_assets.influence.heads import detect_on
from attninf_assets.influence.model.head import BASE, Head, HeadSet
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.probes import Probe
from attninf_assets.influence.runtime.remembered_rate import RememberedRate


def detection_price(
    model: StreamedModel,
    probes: Sequence[Probe],
    evidence_probes: Sequence[Probe],
    *,
    head_fraction: float,
    n_random_sets: int,
    n_audit_probes: int,
    rate: RememberedRate,
) -> DetectionPrice:
    """The price at the remembered rate, or else at that of the first probe, which is computed for it.

    Of the heads, which are yet to be found, it is assumed that they lie evenly over the upper half of the layers. A
    random set that is suspect, so that its heads are masked singly, costs more.
    """
    known = rate.read()
    flops_per_second = measured_on(model, probes[0]) if known is None else known
    n_heads = math.ceil(head_fraction * model.n_layers * model.n_heads)
    upper = range(model.n_layers // 2, model.n_layers)
    spread = [Head(upper[number % len(upper)], number // len(upper)) for number in range(n_heads)]
    heads = [head for head in spread if head.index < model.n_heads]
    flops = evidence_tokens = 0.0
    for streams, shared in _passes(
        model, heads, evidence_probes, n_random_sets=n_random_sets, n_audited=n_audit_probes
    ):
        flops += sum(model.flops.of([len(p.token_ids)], streams, n_predicted=p.answer_length) for p in shared)
        evidence_tokens += model.tree(streams).n_rows[-1] * _tokens(shared)
    return DetectionPrice(
        n_probes=len(probes),
        tokens=_tokens(probes),
        n_evidence_probes=len(evidence_probes),
        evidence_tokens=int(evidence_tokens),
        seconds=detection_flops(model, probes) / flops_per_second,
        evidence_seconds=flops / flops_per_second,
        rate_is_remembered=known is not None,
    )


def detection_flops(model: StreamedModel, probes: Sequence[Probe]) -> float:
    """Useful FLOPs of detection on the probes."""
    return sum(model.flops.of([len(p.token_ids)], [BASE], n_predicted=p.answer_length) for p in probes)


def measured_on(model: StreamedModel, probe: Probe) -> float:
    """Useful FLOP/s of detection on one probe; on CUDA of a second time, as the first one prepares the device."""
    for _ in range(2 if model.device.type == "cuda" else 1):
        started = time.perf_counter()
        found = detect_on(model, [probe])
        found.copied_PLH.numpy()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        seconds = time.perf_counter() - started
    return detection_flops(model, [probe]) / max(seconds, 1e-9)


def _passes(
    model: StreamedModel, heads: Sequence[Head], probes: Sequence[Probe], *, n_random_sets: int, n_audited: int
) -> Iterator[tuple[list[HeadSet], Sequence[Probe]]]:
    """The passes of evidence where no random set is suspect: head sets, and the probes on which they are masked."""
    random_sets = draw_random_sets(heads, n_layers=model.n_layers, n_heads=model.n_heads, n_sets=n_random_sets, seed=0)
    yield [BASE, frozenset(heads), *random_sets], probes
    singles: list[HeadSet] = [frozenset({head}) for head in sorted(heads)] if len(heads) > 1 else []
    for first in range(0, len(singles), AT_ONCE):
        yield singles[first : first + AT_ONCE], probes[:n_audited]


def _tokens(probes: Sequence[Probe]) -> int:
    return sum(len(probe.token_ids) for probe in probes)
