"""What head detection and its evidence found, as plain data that needs no torch to be read."""

from dataclasses import dataclass
from statistics import median

import numpy as np

from attninf_assets.influence.model.head import Head

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
