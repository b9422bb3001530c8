"""What head detection and its evidence found, as plain data that needs no torch to be read."""

import math
from dataclasses import dataclass
from statistics import median

import numpy as np

from attninf_assets.influence.model.head import Head
from attninf_assets.influence.runtime.progress import told_duration

DETECTION_VERSION = 1  # raised whenever the same inputs would give other heads or other evidence
MIN_RATIO = 2.0  # "far above": the heads' effect over the median random set's
MIN_EFFECT = 0.1  # nats on the answer's tokens; less is no effect worth a scoring pass


@dataclass(frozen=True)
class AnswerLoss:
    """The mean loss and token accuracy of a model, masked or not, on the probes' answers."""

    loss: float  # mean cross-entropy in nats over answer tokens
    token_accuracy: float


@dataclass(frozen=True)
class HeadEvidence:
    """Answer losses of base model, reference model and random control sets on the same probes."""

    base: AnswerLoss
    reference: AnswerLoss
    random_sets: tuple[AnswerLoss, ...]
    dominating: tuple[str, ...]  # "L18H8 carries 81 % of random set 2"
    n_probes: int

    @property
    def effect(self) -> float:
        """Rise of the answer loss when the retrieval heads are masked, nats."""
        return self.reference.loss - self.base.loss

    @property
    def random_effect(self) -> float:
        """Median rise over the random sets, nats."""
        return median(control.loss for control in self.random_sets) - self.base.loss

    @property
    def heads_matter(self) -> bool:
        """Whether masking the heads costs at least `MIN_EFFECT` nats and `MIN_RATIO` times what random sets cost."""
        return self.effect >= MIN_EFFECT and self.effect >= MIN_RATIO * max(self.random_effect, 0.0)


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


@dataclass(frozen=True)
class DetectionPrice:
    """The tokens that head detection and its evidence will compute, and the seconds that they will about take."""

    n_probes: int
    tokens: int
    n_evidence_probes: int
    evidence_tokens: int  # one for every row of the pass behind the last layer
    seconds: float
    evidence_seconds: float
    rate_is_remembered: bool  # of an earlier detection on this device, or else measured on one probe just now

    def __str__(self) -> str:
        how = "as it took this device last time" if self.rate_is_remembered else "as measured on one probe"
        return (
            f"detection on {self.n_probes:,} probes will compute {self.tokens:,} tokens in about "
            f"{told_duration(self.seconds)}, then evidence on {self.n_evidence_probes:,} of them "
            f"{self.evidence_tokens:,} in about {told_duration(self.evidence_seconds)}, {how}"
        )


@dataclass(frozen=True)
class DetectionCost:
    """The seconds that head detection and its evidence took."""

    seconds: float
    evidence_seconds: float

    @property
    def ratio(self) -> float:
        """Evidence over detection."""
        return self.evidence_seconds / self.seconds if self.seconds else math.inf

    def __str__(self) -> str:
        return (
            f"detection took {told_duration(self.seconds)}, evidence {told_duration(self.evidence_seconds)}: "
            f"{self.ratio:.2f} times as long"
        )
