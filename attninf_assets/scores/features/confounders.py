"""How much of a domain's attention influence scores is told by what documents are like and where they come from.

All of it is about ranks, as a selection is: nothing depends on how far apart two scores are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "AUC_LIMIT",
    "FEATURES",
    "LIMIT",
    "Correlation",
    "DomainConfounders",
    "LengthBin",
    "confounders_of",
]

# What the score is compared with; of the last, whether there is one. `loss_base` is no feature, it is in the score.
FEATURES = (
    "n_tokens",
    "repetition",
    "repeated_lines",
    "zstd_ratio",
    "alphabetic",
    "licence_markers",
    "log_markers",
    "near_duplicate",
)
SHOWN = (*FEATURES, "loss_base")
N_LENGTH_BINS = 10
TOP = 0.2  # of a domain: what the paper keeps
LIMIT, AUC_LIMIT = 0.5, 0.8  # of a correlation or a share, and of an AUC, from which on a check warns

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of the score with a feature, and its 95 % confidence interval."""

    feature: str
    rho: float
    low: float
    high: float
    median_in_top: float  # of the feature, in the fifth with the highest scores
    median_in_rest: float

    @property
    def surely_beyond(self) -> float:
        """The least |rho| in the interval."""
        return max(self.low, -self.high, 0.0)


@dataclass(frozen=True)
class LengthBin:
    """Scores of the documents of like length: a tenth of the domain, at most."""

    from_tokens: int
    to_tokens: int
    n_documents: int
    p10: float
    median: float
    p90: float
    share_in_top: float  # of its documents, those in the domain's top fifth


@dataclass(frozen=True)
class DomainConfounders:
    """What a domain's scores go with. Shares are of the variance of the score's ranks, and adjusted for chance."""

    domain: str
    n_documents: int  # with a score by the selector
    n_sampled: int  # those looked at
    correlations: tuple[Correlation, ...]  # of features that are not the same everywhere
    explained_by_features: float  # by a linear function of all their ranks
    explained_by_source: float | None  # by which shard a document is of; None where there is one
    source_auc: float | None  # of a guess at the top fifth from the shard alone, told by the domain's other half
    left: float  # by neither: what remains of the ranks' variance after features, then sources
    within_length: float  # the share that lies between documents of like length
    length_bins: tuple[LengthBin, ...]
    near_constant_sources: tuple[str, ...]  # shards whose scores spread far less than the domain's

    def of(self, feature: str) -> Correlation | None:
        """The score's correlation with the feature; None where that is the same for all documents."""
        return next((found for found in self.correlations if found.feature == feature), None)

    @property
    def strongest(self) -> Correlation | None:
        """The feature that the score goes with most."""
        of_features = [found for found in self.correlations if found.feature in FEATURES]
        return max(of_features, key=lambda found: abs(found.rho), default=None)


def confounders_of(
    domain: str,
    columns: Mapping[str, npt.NDArray[Any]],
    *,
    n_documents: int,
    near_constant_sources: tuple[str, ...] = (),
) -> DomainConfounders:
    """What the scores of N >= 4 documents go with.

    `columns` are [N] each: score, `SHOWN` as numbers, and shard. Correlations have the interval of Bonett and Wright
    (2000), rho to rho by Fisher's z with variance (1 + rho^2 / 2) / (N - 3).
    """
    scores_N = np.asarray(columns["score"], dtype=float)
    if len(scores_N) < 4:
        raise ValueError(f"domain {domain}: {len(scores_N)} scores with features, at least 4 are needed")
    ranks_N = _ranks(scores_N)
    top_N = _top(scores_N)
    features = {name: np.asarray(columns[name], dtype=float) for name in SHOWN}
    varied = {name: values for name, values in features.items() if np.ptp(values) > 0}
    ranked = [_ranks(values) for name, values in varied.items() if name in FEATURES]
    explained, residual_N = _regressed(ranks_N, ranked)
    shards, shard_N = np.unique(np.asarray(columns["shard"], dtype=str), return_inverse=True)
    by_source = _between(ranks_N, shard_N) if len(shards) > 1 else None
    left_by_source = _between(residual_N, shard_N) if len(shards) > 1 else 0.0
    bin_N = _length_bins(features["n_tokens"])
    return DomainConfounders(
        domain=domain,
        n_documents=n_documents,
        n_sampled=len(scores_N),
        correlations=tuple(_correlation(name, scores_N, values, top_N) for name, values in varied.items()),
        explained_by_features=explained,
        explained_by_source=by_source,
        source_auc=_source_auc(ranks_N, shard_N, top_N) if len(shards) > 1 else None,
        left=(1 - explained) * (1 - left_by_source),
        within_length=1 - _between(ranks_N, bin_N),
        length_bins=tuple(_bin(scores_N, features["n_tokens"], top_N, bin_N == one) for one in np.unique(bin_N)),
        near_constant_sources=near_constant_sources,
    )


def _ranks(values_N: npt.NDArray[Any]) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values_N), dtype=float)


def _top(scores_N: Floats) -> npt.NDArray[np.bool_]:
    """The fifth with the highest scores, as many of them exactly; of equal scores the later ones."""
    top_N = np.zeros(len(scores_N), dtype=bool)
    top_N[np.argsort(scores_N, kind="stable")[len(scores_N) - int(np.ceil(TOP * len(scores_N))) :]] = True
    return top_N


def _correlation(name: str, scores_N: Floats, values_N: Floats, top_N: npt.NDArray[np.bool_]) -> Correlation:
    from scipy.stats import norm, spearmanr

    rho = float(spearmanr(scores_N, values_N).statistic) if np.ptp(scores_N) > 0 else 0.0
    deviation = np.sqrt((1 + rho**2 / 2) / max(len(scores_N) - 3, 1))
    z = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12)) + np.array([-1, 1]) * norm.ppf(0.975) * deviation
    low, high = np.tanh(z)
    return Correlation(
        name, rho, float(low), float(high), float(np.median(values_N[top_N])), float(np.median(values_N[~top_N]))
    )


def _regressed(ranks_N: Floats, features: list[Floats]) -> tuple[float, Floats]:
    """Adjusted R^2 of the least squares of the ranks on those of the features, and what is left of each."""
    centred_N = ranks_N - ranks_N.mean()
    if not features or not centred_N.any():
        return 0.0, centred_N
    standard_NF = np.stack([(one - one.mean()) / one.std() for one in features], axis=1)
    weights_F, _, n_independent, _ = np.linalg.lstsq(standard_NF, centred_N, rcond=None)
    residual_N = centred_N - standard_NF @ weights_F
    return _adjusted(1 - residual_N.var() / centred_N.var(), len(ranks_N), int(n_independent)), residual_N


def _between(values_N: Floats, group_N: npt.NDArray[np.int64]) -> float:
    """Adjusted eta^2: the share of the values' variance that lies between groups, less what chance puts there."""
    if values_N.var() <= 0:
        return 0.0
    counts = np.bincount(group_N)
    means = np.bincount(group_N, weights=values_N) / np.maximum(counts, 1)
    within = float(((values_N - means[group_N]) ** 2).mean())
    return _adjusted(1 - within / float(values_N.var()), len(values_N), int((counts > 0).sum()) - 1)


def _adjusted(share: float, n: int, n_parameters: int) -> float:
    """R^2 less what so many parameters explain by chance; 0 where these are as many as the documents."""
    free = n - n_parameters - 1
    return float(np.clip(1 - (1 - share) * (n - 1) / free, 0, 1)) if free > 0 else 0.0


def _source_auc(ranks_N: Floats, shard_N: npt.NDArray[np.int64], top_N: npt.NDArray[np.bool_]) -> float | None:
    """The AUC of a shard's mean rank in one half of the documents as a guess at which of the other half are at the top.

    Both ways round, averaged; None where a half has none of the top. With a mean of all the others of its shard, a
    document at the top would have the lower one.
    """
    found = []
    for half in (0, 1):
        learned_N = np.arange(len(ranks_N)) % 2 == half
        counts = np.bincount(shard_N[learned_N], minlength=shard_N.max() + 1)
        sums = np.bincount(shard_N[learned_N], weights=ranks_N[learned_N], minlength=shard_N.max() + 1)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), ranks_N.mean())
        at_top = top_N[~learned_N]
        if not at_top.any() or at_top.all():
            return None
        found.append(_auc(means[shard_N[~learned_N]], at_top))
    return float(np.mean(found))


def _auc(guess_N: Floats, top_N: npt.NDArray[np.bool_]) -> float:
    """The probability that the guess is higher for one of the top than for one of the rest, ties counting half."""
    n_top = int(top_N.sum())
    return float((_ranks(guess_N)[top_N].sum() - n_top * (n_top + 1) / 2) / (n_top * (len(top_N) - n_top)))


def _length_bins(tokens_N: Floats) -> npt.NDArray[np.int64]:
    """The tenth of the domain by length that each document is in; equal lengths stay together."""
    edges = np.unique(np.quantile(tokens_N, np.arange(1, N_LENGTH_BINS) / N_LENGTH_BINS))
    return np.searchsorted(edges, tokens_N, side="left").astype(np.int64)


def _bin(scores_N: Floats, tokens_N: Floats, top_N: npt.NDArray[np.bool_], in_N: npt.NDArray[np.bool_]) -> LengthBin:
    p10, median, p90 = (float(value) for value in np.quantile(scores_N[in_N], [0.1, 0.5, 0.9]))
    tokens = tokens_N[in_N]
    return LengthBin(int(tokens.min()), int(tokens.max()), len(tokens), p10, median, p90, float(top_N[in_N].mean()))
