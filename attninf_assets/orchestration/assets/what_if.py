"""The assets `score_bands` and `selection_what_if`: what the scores hold, and what other fractions would select."""

import hashlib
import json
from typing import Any

import dagster as dg
from pydantic import Field

from attninf_assets.orchestration.assets.scores import attention_influence_scores
from attninf_assets.orchestration.assets.selection import selected_subset
from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.display.catalog import DELTA_TABLE, OWNERS, table_metadata
from attninf_assets.orchestration.display.metadata import records, rounded
from attninf_assets.orchestration.display.selection_plots import band_bars, what_if_curves
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.selection.bands import score_bands as bands_of
from attninf_assets.selection.scored import open_scored
from attninf_assets.selection.what_if import FRACTIONS, WhatIf, what_if


@dg.asset(
    deps=[attention_influence_scores],
    group_name="selection",
    owners=OWNERS,
    tags=DELTA_TABLE,
    kinds={"deltalake", "duckdb"},
    code_version="1",
    metadata=table_metadata("score_bands"),
)
@transient_faults_retried
def score_bands(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    """Twenty bands of equal tokens for each domain, by score: documents, tokens, borders, losses, length, repetition.

    Mixers take quality in twentieths, each at a weight of its own; band 0-5 holds the best scores. The bands of a
    domain are all of its documents with a finite score by the selector in use. `attninf bands --export` writes them as
    a mixture.
    """
    tables = lake.tables()
    with open_scored(tables) as scored:
        bands = bands_of(
            scored.connection,
            selector_fingerprint=scored.selector_fingerprint,
            with_repetition=scored.with_repetition,
        )
    version, _ = tables.replace_if_changed("score_bands", bands)
    rows = bands.to_pylist()
    context.log.info(f"{len(rows):,} bands")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(hashlib.sha256(json.dumps(rows).encode()).hexdigest()),
        metadata={
            "bands": records(
                [_shown({name: row[name] for name in row if name != "selector_fingerprint"}) for row in rows]
            ),
            "picture": band_bars(rows),
            "dagster/row_count": len(rows),
            "dagster/uri": tables.root.table_uri("score_bands"),
            "delta_version": version,
            "selector_fingerprint": scored.selector_fingerprint,
        },
    )


class WhatIfConfig(dg.Config):
    """Run configuration of `selection_what_if`: the fractions to look at."""

    fractions: list[float] = Field(default=list(FRACTIONS), description="Of documents and of tokens, each.")


@dg.asset(deps=[attention_influence_scores, selected_subset], group_name="selection", owners=OWNERS, kinds={"duckdb"})
@transient_faults_retried
def selection_what_if(
    context: dg.AssetExecutionContext, config: WhatIfConfig, lake: LakeResource
) -> dg.MaterializeResult:
    """What each domain's selection would be at other fractions, by documents and by tokens. Nothing is selected.

    Documents, tokens, threshold, mean length and repetition, and what is in common with each selection that there is:
    what the scores that are paid for would give, before the fraction is chosen. All is in the metadata.
    """
    tables = lake.tables()
    with open_scored(tables, "selected_subset") as scored:
        rows = what_if(
            scored.connection,
            selector_fingerprint=scored.selector_fingerprint,
            fractions=config.fractions,
            with_repetition=scored.with_repetition,
        )
    context.log.info(f"{len({row.domain for row in rows})} domains at {len(config.fractions)} fractions")
    return dg.MaterializeResult(
        metadata={
            "what_if": records([_shown(_row(row)) for row in rows]),
            "picture": what_if_curves(rows),
            "selector_fingerprint": scored.selector_fingerprint,
        }
    )


def _row(row: WhatIf) -> dict[str, Any]:
    return {
        "domain": row.domain,
        "budget": row.budget,
        "fraction": row.fraction,
        "documents": row.documents,
        "tokens": row.tokens,
        "share_of_tokens": row.tokens / row.tokens_total,
        "threshold_score": row.threshold_score,
        "mean_tokens": row.mean_tokens,
        "mean_repetition": row.mean_repetition,
        **{f"in_{one.selection}": one.share for one in row.overlaps},
        **{f"jaccard_{one.selection}": one.jaccard for one in row.overlaps},
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row as a person reads it; what is not known is a dash."""
    return {
        name: rounded(value) if isinstance(value, float) else "-" if value is None else value
        for name, value in row.items()
    }
