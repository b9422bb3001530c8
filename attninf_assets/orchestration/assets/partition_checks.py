"""Asset checks of one shard at a time; each looks in the tables themselves and shares no code with what wrote them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import dagster as dg

from attninf_assets.corpus.verification import refusal_reasons, repeated_ids
from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.display.metadata import as_json
from attninf_assets.orchestration.runs.partition_runs import PartitionCheck
from attninf_assets.scores.features.verification import feature_faults
from attninf_assets.scores.verification import (
    count_unscorable,
    count_wrong_losses,
    count_wrong_scores,
    fingerprints,
    mismatch,
)
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.query import connect, count_rows

if TYPE_CHECKING:
    import duckdb

RAW_CORPUS, SCORES = dg.AssetKey("raw_corpus"), dg.AssetKey("attention_influence_scores")
FEATURES = dg.AssetKey("document_features")

MAX_QUARANTINED = 0.05  # of a shard's rows
MAX_WITHOUT_SCORE = 0.01  # of a shard's documents: no tokens, or a loss below 1e-4 nats

_WARN = dg.AssetCheckSeverity.WARN


@contextmanager
def _partition(key: str, lake: LakeResource, *tables: str) -> "Iterator[duckdb.DuckDBPyConnection]":
    """A connection whose views hold the partition alone."""
    domain, shard = key.split(".")
    with connect(lake.tables(), *tables, where={"domain": domain, "shard": shard}) as connection:
        yield connection


def quarantine_is_small(key: str, lake: LakeResource) -> dg.AssetCheckResult:
    """At most 5 % of the shard's rows were refused."""
    with _partition(key, lake, "documents", "quarantine") as connection:
        indexed, refused = (count_rows(connection, view) for view in ("documents", "quarantine"))
        reasons = refusal_reasons(connection)
    return dg.AssetCheckResult(
        passed=refused <= MAX_QUARANTINED * (indexed + refused),
        severity=_WARN,
        metadata={"documents": indexed, "quarantined": refused, "reasons": as_json(reasons)},
    )


def document_ids_are_unique(key: str, lake: LakeResource) -> dg.AssetCheckResult:
    """No document of the shard has the id of another document of its domain, in this shard or any other."""
    domain, shard = key.split(".")
    with connect(lake.tables(), "documents", where={"domain": domain}) as connection:
        repeated = repeated_ids(connection, shard=shard)
    return dg.AssetCheckResult(passed=not repeated, metadata={"repeated": as_json(repeated)})


def every_document_is_scored_once(key: str, lake: LakeResource) -> dg.AssetCheckResult:
    """Every indexed document of the shard has exactly one score row, for the text that was indexed; no row is extra."""
    with _partition(key, lake, "documents", "scores", "quarantine") as connection:
        found = mismatch(connection)
        refused = count_rows(connection, "quarantine")
    return dg.AssetCheckResult(passed=found.none, metadata={**asdict(found), "quarantined": refused})


def losses_are_finite(key: str, lake: LakeResource) -> dg.AssetCheckResult:
    """Every loss is a finite number, not negative, and every score that is not null is finite."""
    with _partition(key, lake, "scores") as connection:
        wrong = count_wrong_losses(connection)
    return dg.AssetCheckResult(passed=wrong == 0, metadata={"documents_with_wrong_losses": wrong})


def scores_follow_from_losses(key: str, lake: LakeResource) -> dg.AssetCheckResult:
    """Every score is (loss_reference - loss_base) / loss_base, and null where loss_base is below 1e-4 nats."""
    with _partition(key, lake, "scores") as connection:
        wrong = count_wrong_scores(connection)
    return dg.AssetCheckResult(passed=wrong == 0, metadata={"documents_with_wrong_scores": wrong})


def few_documents_without_score(key: str, lake: LakeResource) -> dg.AssetCheckResult:
    """At most 1 % of the shard's documents have a null score: no tokens, or no loss to speak of."""
    with _partition(key, lake, "scores") as connection:
        total, null = count_rows(connection, "scores"), count_unscorable(connection)
    return dg.AssetCheckResult(
        passed=null <= MAX_WITHOUT_SCORE * total, severity=_WARN, metadata={"documents": total, "without_score": null}
    )


def one_selector_per_partition(key: str, lake: LakeResource) -> dg.AssetCheckResult:
    """All scores of the shard are by the selector in use."""
    in_use = current_fingerprint(lake.storage_root())
    with _partition(key, lake, "scores") as connection:
        found = fingerprints(connection)
    return dg.AssetCheckResult(passed=set(found) <= {in_use}, metadata={"selector_fingerprints": as_json(found)})


def every_document_has_features_once(key: str, lake: LakeResource) -> dg.AssetCheckResult:
    """Every indexed document of the shard has exactly one row of features, of the text that was indexed; none is extra,
    and every share is between 0 and 1."""
    with _partition(key, lake, "documents", "document_features") as connection:
        found = feature_faults(connection)
    return dg.AssetCheckResult(passed=not any(found.values()), metadata=found)


CORPUS_CHECKS = [PartitionCheck(RAW_CORPUS, judge) for judge in (quarantine_is_small, document_ids_are_unique)]
SCORE_CHECKS = [
    PartitionCheck(SCORES, judge)
    for judge in (
        every_document_is_scored_once,
        losses_are_finite,
        scores_follow_from_losses,
        few_documents_without_score,
        one_selector_per_partition,
    )
]
FEATURE_CHECKS = [PartitionCheck(FEATURES, every_document_has_features_once)]
