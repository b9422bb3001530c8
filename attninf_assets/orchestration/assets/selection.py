"""The assets `score_thresholds` and `selected_subset`: a threshold per domain, and the documents at or above it."""

import hashlib
import json
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from attninf_assets.orchestration.assets.corpus import raw_corpus
from attninf_assets.orchestration.assets.reading import selection_to_read
from attninf_assets.orchestration.assets.scores import attention_influence_scores
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.orchestration.display.catalog import DELTA_TABLE, OWNERS, table_metadata
from attninf_assets.orchestration.display.metadata import records, rounded
from attninf_assets.orchestration.display.plots import score_distributions
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.orchestration.runs.shard_work import never_indexed
from attninf_assets.scores.coverage import coverage_by_domain, indexed_shards, require_coverage
from attninf_assets.selection.summary import sampled_scores, selected_by_domain
from attninf_assets.selection.thresholds import find_thresholds, selected, selection_digest
from attninf_assets.selection.verification import require_thresholds_of_the_scores
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.query import connect


class SelectionConfig(dg.Config):
    """Run configuration of `score_thresholds`: the fraction to keep, what it counts, and the coverage it requires."""

    fraction: float = Field(default=0.2, description="Share of each domain that is kept, above 0, at most 1.")
    budget: Literal["documents", "tokens"] = Field(
        default="documents", description="Whether the fraction counts documents, as in the paper, or their tokens."
    )
    min_coverage: float = Field(
        default=1.0,
        description="Least share of a domain's documents that must have a current score. At 1, every registered shard "
        "must have been indexed, too.",
    )


@dg.asset(
    deps=[raw_corpus, attention_influence_scores],
    group_name="selection",
    owners=OWNERS,
    tags=DELTA_TABLE,
    kinds={"deltalake", "duckdb"},
    code_version="1",
    metadata=table_metadata("thresholds"),
)
@transient_faults_retried
def score_thresholds(
    context: dg.AssetExecutionContext, config: SelectionConfig, lake: LakeResource
) -> dg.MaterializeResult:
    """A row for each domain: score and doc_id of the last document kept, and how much of the domain that keeps.

    Scores are comparable only inside a domain, so each domain has a threshold of its own, which keeps the wanted
    fraction of its documents or tokens. Documents rank by (score, doc_id), so the number kept is exact. Only scores of
    the selector in use count.
    """
    tables = lake.tables()
    fingerprint = current_fingerprint(tables.root)
    with connect(tables, "documents", "scores") as connection:
        coverage = coverage_by_domain(connection, selector_fingerprint=fingerprint)
        require_coverage(
            coverage,
            at_least=config.min_coverage,
            never_indexed=never_indexed(context.instance, indexed=indexed_shards(connection)),
        )
        thresholds = find_thresholds(
            connection, selector_fingerprint=fingerprint, fraction=config.fraction, budget=config.budget
        )
        by_domain = {row["domain"]: row["threshold_score"] for row in thresholds.to_pylist()}
        sample = sampled_scores(connection, by_domain, selector_fingerprint=fingerprint)
    version, _ = tables.replace_if_changed("thresholds", thresholds)
    context.log.info(f"thresholds of {len(thresholds)} domains at {config.fraction:.0%} of {config.budget}")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(hashlib.sha256(json.dumps(thresholds.to_pylist()).encode()).hexdigest()),
        metadata={
            "thresholds": records([_shown(row) for row in thresholds.to_pylist()]),
            "score_distributions": score_distributions(sample, thresholds.to_pylist()),
            "coverage": records(
                [{"domain": c.domain, "documents": c.n_documents, "scored": c.n_scored} for c in coverage]
            ),
            **{
                column: sum(thresholds[column].to_pylist())
                for column in ("n_documents", "n_selected", "tokens_total", "tokens_selected")
            },
            "dagster/row_count": len(thresholds),
            "dagster/uri": tables.root.table_uri("thresholds"),
            "delta_version": version,
            "selector_fingerprint": fingerprint,
        },
    )


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A threshold's row as a person reads it: what is kept first, ids last."""
    kept = ("n_selected", "n_documents", "tokens_selected", "tokens_total")
    return {
        "domain": row["domain"],
        "threshold_score": rounded(row["threshold_score"]),
        **{name: row[name] for name in kept},
        "fraction": row["fraction"],
        "budget": row["budget"],
        "threshold_doc_id": row["threshold_doc_id"],
    }


@dg.asset(
    deps=[attention_influence_scores, score_thresholds],
    group_name="selection",
    owners=OWNERS,
    tags=DELTA_TABLE,
    kinds={"deltalake", "duckdb"},
    code_version="1",
    metadata=table_metadata("selected_subset"),
)
@transient_faults_retried
def selected_subset(
    context: dg.AssetExecutionContext, corpus: CorpusResource, lake: LakeResource
) -> dg.MaterializeResult:
    """A row for each selected document: doc_id, score and tokens of those at or above their domain's threshold.

    It is the reasoning-intensive part of the corpus, which `training_corpus` repeats. Texts are not copied into it.
    Refused, and the old selection kept, where scores were written after the thresholds that would change them.
    """
    tables, sources = lake.tables(), corpus.open()
    fingerprint = current_fingerprint(tables.root)
    with connect(tables, "scores", "thresholds") as connection:
        require_thresholds_of_the_scores(connection, selector_fingerprint=fingerprint)
        version = tables.replace("selected_subset", selected(connection, selector_fingerprint=fingerprint))
    with connect(tables, "selected_subset", versions={"selected_subset": version}) as connection:  # not another run's
        digest = selection_digest(connection)
        by_domain = selected_by_domain(connection)
    n_documents = sum(row["documents"] for row in by_domain)
    context.log.info(f"{n_documents:,} documents selected")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(digest),
        metadata={
            "selected": records([{name: _short(value) for name, value in row.items()} for row in by_domain]),
            "tokens": sum(row["tokens"] for row in by_domain),
            "dagster/row_count": n_documents,
            "dagster/uri": tables.root.table_uri("selected_subset"),
            "delta_version": version,
            "selector_fingerprint": fingerprint,
            **selection_to_read(tables, sources, "paper", selector_fingerprint=fingerprint),
        },
    )


def _short(value: Any) -> Any:
    return rounded(value) if isinstance(value, float) else value
