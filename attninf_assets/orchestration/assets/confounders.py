"""The asset `score_confounders`: what the scores go with besides reasoning."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from attninf_assets.orchestration.assets.features import document_features, near_duplicates
from attninf_assets.orchestration.assets.scores import attention_influence_scores
from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.display.catalog import OWNERS
from attninf_assets.orchestration.display.metadata import as_json, records, rounded
from attninf_assets.orchestration.display.plots import scores_against
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.scores.features.confounder_sample import SAMPLE, confounders_by_domain
from attninf_assets.scores.features.confounders import AUC_LIMIT, LIMIT, DomainConfounders
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.query import connect

_MEMORY_LIMIT = "4GB"  # of DuckDB; what does not fit spills to the temporary directory
_MORE_THAN_CONFOUNDERS = dg.AssetCheckSpec(
    "score_is_more_than_confounders",
    asset="score_confounders",
    description=f"In no domain does the score surely correlate with a feature beyond {LIMIT:g}, do all features, or "
    f"the sources, explain more than {LIMIT:.0%} of its ranks, does the source alone tell the top fifth with an AUC "
    f"above {AUC_LIMIT:g}, or have a source's scores nearly no spread.\n\nWhat was found stands beside the "
    "remedy that fits: an order or a condition of a named selection.",
)


class ConfounderConfig(dg.Config):
    """Run configuration of `score_confounders`: how many documents are looked at, and which."""

    documents_per_domain: int = Field(
        default=SAMPLE,
        ge=100,
        description="About so many documents of each domain are looked at; all, if it has fewer.",
    )
    seed: int = Field(default=0, description="Decides, with the doc_ids alone, which ones.")


@dg.asset(
    deps=[attention_influence_scores, document_features, near_duplicates],
    group_name="scores",
    owners=OWNERS,
    kinds={"duckdb", "scipy"},
    code_version="1",
    check_specs=[_MORE_THAN_CONFOUNDERS],
)
@transient_faults_retried
def score_confounders(
    context: dg.AssetExecutionContext, config: ConfounderConfig, lake: LakeResource
) -> dg.MaterializeResult:
    """How much of the scores, domain by domain, length, repetition, boilerplate, duplicates and the source tell.

    On real text the attention influence score rises with repetition, memorized boilerplate and length, and a source
    alone may predict it, so that a high score need not be reasoning. In the metadata stand Spearman correlations with
    95 % intervals, the share of the score's ranks that features and sources explain, what is left, how the top fifth
    spreads over lengths, and sources whose scores are nearly the same; of a sample of each domain, whose size is said.
    """
    tables = lake.tables()
    fingerprint = current_fingerprint(tables.root)
    with connect(tables, "scores", "document_features", memory_limit=_MEMORY_LIMIT) as connection:
        found = confounders_by_domain(
            connection, selector_fingerprint=fingerprint, size=config.documents_per_domain, seed=config.seed
        )
    if not found:
        raise ValueError("no domain has scores with features: materialize document_features for the scored shards")
    domains = [of for of, _ in found]
    for of in domains:
        context.log.info(_story(of))
    warnings = [warning for of in domains for warning in _warnings(of)]
    return dg.MaterializeResult(
        metadata={
            "domains": records([_summary(of) for of in domains]),
            "scores_against_length_and_repetition": scores_against(
                {of.domain: columns for of, columns in found}, {"n_tokens": "tokens", "repetition": "repetition"}
            ),
            "correlations": records([row for of in domains for row in _correlations(of)]),
            "by_length": records([row for of in domains for row in _by_length(of)]),
            "near_constant_sources": as_json(
                {of.domain: list(of.near_constant_sources) for of in domains if of.near_constant_sources}
            ),
            **_plotted(domains),
            "documents_looked_at": sum(of.n_sampled for of in domains),
            "documents": sum(of.n_documents for of in domains),
            "selector_fingerprint": fingerprint,
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=_MORE_THAN_CONFOUNDERS.name,
                passed=not warnings,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"found": records(warnings)} if warnings else {},
            )
        ],
    )


def _warnings(of: DomainConfounders) -> Iterator[dict[str, str]]:
    """What goes beyond a limit in the domain, each with the remedy that fits."""
    remedies = {
        "n_tokens": "order: score_at_matched_length",
        "licence_markers": "where: licence_markers = 0",
        "log_markers": "where: log_markers = 0",
        "near_duplicate": "where: near_duplicate_cluster IS NULL",
        "repetition": "where: repetition < 0.2, or order: score_without_confounders",
        "repeated_lines": "where: repeated_lines < 0.2, or order: score_without_confounders",
    }
    otherwise = "order: score_without_confounders"

    def beyond(what: str, remedy: str) -> dict[str, str]:
        return {"domain": of.domain, "found": what, "remedy": f"of a named selection, {remedy}"}

    for found in of.correlations:
        if found.feature != "loss_base" and found.surely_beyond > LIMIT:
            what = f"Spearman correlation with {found.feature} {found.rho:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
            yield beyond(what, remedies.get(found.feature, otherwise))
    if of.explained_by_features > LIMIT:
        yield beyond(f"the features explain {of.explained_by_features:.0%} of the score's ranks", otherwise)
    if of.explained_by_source is not None and of.explained_by_source > LIMIT:
        yield beyond(f"the source explains {of.explained_by_source:.0%} of the score's ranks", _BY_SOURCE)
    if of.source_auc is not None and of.source_auc > AUC_LIMIT:
        yield beyond(f"the source alone tells the top fifth with an AUC of {of.source_auc:.2f}", _BY_SOURCE)
    if sources := of.near_constant_sources:
        listed = ", ".join(sources[:3]) + (", …" if len(sources) > 3 else "")
        yield beyond(f"{len(sources):,} sources whose scores are nearly the same: {listed}", _BY_SOURCE)


_BY_SOURCE = "order: score_without_confounders; or make the source a domain of its own in the corpus file"


def _story(of: DomainConfounders) -> str:
    strongest = of.strongest
    most = f"most with {strongest.feature} ({strongest.rho:+.2f})" if strongest else "with no feature"
    source = "one source" if of.explained_by_source is None else f"the source explains {of.explained_by_source:.0%}"
    return (
        f"{of.domain}: the score goes {most}; all features explain {of.explained_by_features:.0%} of its ranks, "
        f"{source}, {of.left:.0%} is left ({of.n_sampled:,} of {of.n_documents:,} documents looked at)"
    )


def _summary(of: DomainConfounders) -> dict[str, Any]:
    strongest = of.strongest
    return {
        "domain": of.domain,
        "strongest": strongest.feature if strongest else "none",
        "correlation": rounded(strongest.rho, digits=3) if strongest else 0.0,
        "explained_by_features": rounded(of.explained_by_features, digits=3),
        "explained_by_source": _known(of.explained_by_source),
        "source_auc": _known(of.source_auc),
        "left": rounded(of.left, digits=3),
        "within_length": rounded(of.within_length, digits=3),
        "near_constant_sources": len(of.near_constant_sources),
        "documents": of.n_documents,
        "looked_at": of.n_sampled,
    }


def _known(value: float | None) -> str:
    return "one source" if value is None else f"{value:.3g}"


def _correlations(of: DomainConfounders) -> list[dict[str, Any]]:
    return [
        {
            "domain": of.domain,
            "feature": found.feature,
            "spearman": rounded(found.rho, digits=3),
            "low": rounded(found.low, digits=3),
            "high": rounded(found.high, digits=3),
            "median_in_top_fifth": rounded(found.median_in_top),
            "median_in_rest": rounded(found.median_in_rest),
        }
        for found in sorted(of.correlations, key=lambda found: -abs(found.rho))
    ]


def _by_length(of: DomainConfounders) -> list[dict[str, Any]]:
    return [
        {
            "domain": of.domain,
            "from_tokens": one.from_tokens,
            "to_tokens": one.to_tokens,
            "documents": one.n_documents,
            "p10": rounded(one.p10),
            "median": rounded(one.median),
            "p90": rounded(one.p90),
            "share_in_top_fifth": rounded(one.share_in_top, digits=3),
        }
        for one in of.length_bins
    ]


def _plotted(domains: list[DomainConfounders]) -> dict[str, float]:
    """The worst of all domains as numbers, which Dagster plots over time."""
    auc = [of.source_auc for of in domains if of.source_auc is not None]
    worst = {
        "most_explained_by_features": max(of.explained_by_features for of in domains),
        "least_left": min(of.left for of in domains),
        "strongest_correlation": max(abs(of.strongest.rho) if of.strongest else 0.0 for of in domains),
        **({"highest_source_auc": max(auc)} if auc else {}),
    }
    return {name: rounded(value) for name, value in worst.items()}
