"""The default sizes of head detection and of its evidence: the paper's, and those that a slow device has time for."""

from dataclasses import dataclass
from typing import Literal

PlanName = Literal["paper", "small"]


@dataclass(frozen=True)
class ProbePlan:
    """The sizes of head detection: number and length of its probes."""

    n_probes: int
    probe_tokens: int  # of one probe, answer included


@dataclass(frozen=True)
class EvidencePlan:
    """How much evidence is gathered for the heads: probes, random head sets, probes on which heads are masked singly.

    Raises `ValueError` naming the field where one has a value that is not allowed.
    """

    n_evidence_probes: int
    n_random_sets: int
    n_audit_probes: int

    def __post_init__(self) -> None:
        """Raise `ValueError` before the model is loaded for what evidence cannot be gathered with."""
        for field, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{field} must be at least 1, is {value}")
        if self.n_audit_probes > self.n_evidence_probes:
            raise ValueError(
                f"n_audit_probes must not exceed n_evidence_probes ({self.n_evidence_probes}), is {self.n_audit_probes}"
            )


# Small: on the sample model and on Gemma 3 270M the upper half of the heads is the same from two probes of 512 tokens
# on; at the cut one or two heads swap whatever the number.
PLANS: dict[PlanName, ProbePlan] = {"paper": ProbePlan(800, 4096), "small": ProbePlan(16, 512)}


def plan_for(device: str) -> PlanName:
    """The plan where none was asked for: the paper's on CUDA, small on any other type of device.

    On a CPU the paper's 3.3 million tokens take a model of 135 million parameters an hour, one of a billion a night.
    """
    return "paper" if device == "cuda" else "small"


def evidence_for(
    n_probes: int,
    *,
    n_evidence_probes: int | None = None,
    n_random_sets: int | None = None,
    n_audit_probes: int | None = None,
) -> EvidencePlan:
    """The evidence for heads that so many probes found: what is given, else so much that it costs less than detection.

    It costs more where random sets are suspect, so that their heads are masked singly, too. Raises `ValueError` for
    more probes of evidence than there are, or a number below 1.
    """
    if n_evidence_probes is not None and n_evidence_probes > n_probes:
        raise ValueError(f"n_evidence_probes must be at most the number of probes, {n_probes}, is {n_evidence_probes}")
    probes = min(64, -(-3 * n_probes // 16)) if n_evidence_probes is None else n_evidence_probes
    audited = min(probes, max(1, min(8, n_probes // 32))) if n_audit_probes is None else n_audit_probes
    sets = (3 if n_probes < 256 else 5) if n_random_sets is None else n_random_sets
    return EvidencePlan(probes, sets, audited)
