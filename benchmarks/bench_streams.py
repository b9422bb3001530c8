"""Many head sets in one pass against a pass for each, and evidence against detection, each pair in one run.

python -m benchmarks.bench_streams                                    # CPU, sample model, 1 probe of 512 tokens
python -m benchmarks.bench_streams --shape 1.7b --device cuda --probe-tokens 4096

Needs only torch, transformers and numpy where a --shape is given. `ideal` is the ratio of useful FLOPs: what the tree
of rows (`influence/model/stream_tree.py`) leaves to compute. Sets are those of evidence: as large as the retrieval
heads, drawn at random from their layers; or nested: the retrieval heads without the shallowest, without the two
shallowest and so on; or single retrieval heads, as the audit masks them.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import torch

from attninf_assets.influence.evidence import draw_random_sets, gather_evidence
from attninf_assets.influence.heads import answer_rows, detect_retrieval_heads, pack_probes
from attninf_assets.influence.model.head import BASE, Head, HeadSet
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.probes import Probe
from attninf_assets.influence.runtime.token_budget import TokenBudget
from attninf_assets.selector.probe_plan import EvidencePlan, evidence_for
from benchmarks.bench_detection import random_probes, sample_probes
from benchmarks.clock import Timed, timed
from benchmarks.subjects import add_arguments, chosen_subject

_NUMBERS = (2, 4, 8, 16)


def main() -> None:
    """Print the table of passes, then that of detection and evidence."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(arguments, documents=1)
    arguments.add_argument("--probe-tokens", type=int, default=512)
    arguments.add_argument("--evidence", type=int, metavar="PROBES", help="instead: detection and evidence on so many")
    chosen = arguments.parse_args()
    subject = chosen_subject(chosen)
    model = subject.ready()
    print(f"{subject.device}, {subject.numeric_class}, {torch.get_num_threads()} threads, {chosen.probe_tokens} tokens")
    budget = TokenBudget(max(subject.token_budget, chosen.probe_tokens))
    if chosen.evidence is not None:
        plan = evidence_for(chosen.evidence)
        _compare_evidence(model, sample_probes(chosen.evidence, chosen.probe_tokens), budget, plan=plan)
        return
    [probe] = (sample_probes if chosen.shape is None else random_probes)(1, chosen.probe_tokens)
    _compare_passes(model, probe, sorted(subject.heads))


def _compare_passes(model: StreamedModel, probe: Probe, heads: Sequence[Head]) -> None:
    print(
        "| sets | streams | one pass, s | a pass each, s | ratio | ideal | furthest apart, nats |\n" + "|---" * 7 + "|"
    )
    packed = pack_probes([probe])
    rows_R = answer_rows([probe], packed)

    def flops(streams: Sequence[HeadSet]) -> float:
        return model.flops.of(packed.lengths, streams, n_predicted=len(rows_R))

    def losses(streams: Sequence[HeadSet]) -> torch.Tensor:
        return model.answers_SR(packed, rows_R, streams)[0].cpu()

    losses([BASE])
    alone: dict[HeadSet, Timed[torch.Tensor]] = {}  # the same set stands in several rows of the table
    for n_streams in _NUMBERS:
        random_sets = draw_random_sets(
            heads, n_layers=model.n_layers, n_heads=model.n_heads, n_sets=n_streams - 2, seed=0
        )
        for name, streams in {
            "evidence": [BASE, frozenset(heads), *random_sets],
            "nested": [frozenset(heads[first:]) for first in range(min(n_streams, len(heads) + 1))],
            "single": [frozenset({head}) for head in heads[:n_streams]],
        }.items():
            for heads_ in streams:
                if heads_ not in alone:
                    alone[heads_] = timed(partial(losses, [heads_]), model.device)
            each = [alone[heads_] for heads_ in streams]
            once = timed(partial(losses, streams), model.device)
            apart = (once.result - torch.cat([one.result for one in each])).abs().max().item()
            summed = sum(one.seconds for one in each)
            ideal = flops(streams) / sum(flops([heads_]) for heads_ in streams)
            print(
                f"| {name} | {len(streams)} | {once.seconds:.2f} | {summed:.2f} | {once.seconds / summed:.2f} "
                f"| {ideal:.2f} | {apart:.1g} |",
                flush=True,
            )


def _compare_evidence(
    model: StreamedModel, probes: Sequence[Probe], budget: TokenBudget, *, plan: EvidencePlan
) -> None:
    detect = partial(detect_retrieval_heads, model, probes, head_fraction=0.05, token_budget=budget)
    detection = timed(detect, model.device)
    gather = partial(
        gather_evidence,
        model,
        probes[:: max(1, len(probes) // plan.n_evidence_probes)][: plan.n_evidence_probes],
        detection.result.retrieval_heads,
        mask="uniform",
        n_random_sets=plan.n_random_sets,
        n_audit_probes=plan.n_audit_probes,
        seed=0,
        token_budget=budget,
    )
    evidence = timed(gather, model.device)
    ratio = evidence.seconds / detection.seconds
    print(f"detection {detection.seconds:.1f} s, evidence {evidence.seconds:.1f} s, {ratio:.2f} x")
    print(f"effect {evidence.result.effect:.4f}, random {evidence.result.random_effect:.4f}")
    print("\n".join(evidence.result.dominating))


if __name__ == "__main__":
    main()
