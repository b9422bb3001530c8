"""The check `recomputed_scores_agree`: each scoring run computes a few of the scores it stored once more."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from attninf_assets.corpus.documents import Shard
from attninf_assets.influence.selector import Selector
from attninf_assets.orchestration.display.metadata import as_json
from attninf_assets.orchestration.runs.partition_runs import CheckInPassing
from attninf_assets.scores.update import PartitionScores
from attninf_assets.store.filesystems import StorageOptions
from attninf_assets.store.tables import Lake

if TYPE_CHECKING:
    from attninf_assets.influence.engine import Engine

MOST_DOCUMENTS = 4
MOST_TOKENS = 0.02  # of those that the run scored

RECOMPUTED_SCORES_AGREE = CheckInPassing(
    dg.AssetKey("attention_influence_scores"),
    "recomputed_scores_agree",
    "Some stored scores of the shard, computed once more by the run that stored them, one window at a time and without "
    "what makes scoring fast, are the same. A run that scored nothing loads no model and leaves this as it was.",
)


def recomputed(
    scores: PartitionScores,
    tables: Lake,
    shard: Shard,
    selector: Selector,
    *,
    load: "Callable[[], Engine]",
    storage_options: StorageOptions,
) -> list[dg.AssetCheckResult]:
    """The check's result, where the run has scored something; the version that it wrote is the seed.

    At most `MOST_DOCUMENTS` documents are drawn from all that the partition holds now, with at most `MOST_TOKENS` of
    the tokens that the run has scored; but one at least, a short one.
    """
    if not scores.n_scored or scores.version is None:
        return []

    from attninf_assets.influence.scoring import SCORE_TOLERANCE
    from attninf_assets.scores.recomputation import recompute_sample

    sample = list(
        recompute_sample(
            tables,
            shard,
            selector,
            n=MOST_DOCUMENTS,
            seed=scores.version,
            most_tokens=MOST_TOKENS * scores.tokens_scored,
            load=load,
            storage_options=storage_options,
        )
    )
    deviations = [row.deviation for row in sample if math.isfinite(row.deviation)]
    return [
        dg.AssetCheckResult(
            check_name=RECOMPUTED_SCORES_AGREE.name,
            passed=all(row.agrees for row in sample),
            metadata={
                "documents": len(sample),
                "tokens": sum(row.n_tokens for row in sample),
                "largest_deviation": max(deviations, default=0.0),
                "tolerance": SCORE_TOLERANCE[selector.numeric_class],
                "numeric_class": selector.numeric_class,
                "seed": scores.version,
                "differing": as_json([str(row) for row in sample if not row.agrees]),
            },
        )
    ]
