"""The default sizes of head detection: the paper's, and smaller ones for the sample model on a CPU."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ProbePlan:
    """The sizes of head detection: number and length of probes, and how much evidence is gathered for the heads."""

    n_probes: int
    probe_tokens: int  # of one probe, answer included
    n_evidence_probes: int
    n_random_sets: int
    n_audit_probes: int  # on which heads are masked one by one


PAPER = ProbePlan(n_probes=800, probe_tokens=4096, n_evidence_probes=64, n_random_sets=5, n_audit_probes=8)
# On the sample model the upper half of the heads is the same from two probes of 512 tokens on; at the 5 % cut one or
# two heads swap whatever the number.
SAMPLE = ProbePlan(n_probes=16, probe_tokens=512, n_evidence_probes=6, n_random_sets=3, n_audit_probes=1)


def plan_of(n_probes: int, probe_tokens: int) -> ProbePlan:
    """The plan with so many probes of that length, and the evidence of `SAMPLE` or, for more probes, of `PAPER`."""
    like = SAMPLE if n_probes <= SAMPLE.n_probes else PAPER
    return replace(like, n_probes=n_probes, probe_tokens=probe_tokens)
