"""The selection: a score threshold per domain, and the documents at or above it.

A domain's documents with a finite score are ordered by (score, doc_id), highest first. Selected is the shortest prefix
that reaches the wanted fraction of the documents, or of their tokens. The threshold is the (score, doc_id) of the last
document selected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from attninf_assets.selection.cuts import find_cuts
from attninf_assets.store.query import rows_digest
from attninf_assets.store.schemas import TABLES

if TYPE_CHECKING:
    import duckdb

__all__ = ["Budget", "find_thresholds", "require_fraction", "selected", "selection_digest"]

Budget = Literal["documents", "tokens"]


def find_thresholds(
    connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str, fraction: float, budget: Budget
) -> pa.Table:
    """The `thresholds` row of every domain that has a finite score by that selector, from the view `scores`.

    The fraction is taken as the decimal it is written as: 0.07 of 100 documents is 7. Rows of other selectors, and
    null, NaN or infinite scores, neither count nor can be selected.

    Raises ValueError for a fraction outside (0, 1], an unknown budget, a counted document without tokens, and a
    document that occurs twice exactly at its domain's threshold, where the cut would be ambiguous. (Repeated ids
    elsewhere do not move the cut and are not looked for here.)
    """
    require_fraction(fraction)
    if budget not in ("documents", "tokens"):
        raise ValueError(f"budget {budget!r}: expected 'documents' or 'tokens'")
    cuts = find_cuts(connection, selector_fingerprint, fraction, by_tokens=budget == "tokens")
    rows = [
        {
            "domain": cut.domain,
            "fraction": float(fraction),
            "budget": budget,
            "threshold_score": cut.score,
            "threshold_doc_id": cut.doc_id,
            "n_documents": cut.n_documents,
            "n_selected": cut.n_selected,
            "tokens_total": cut.tokens_total,
            "tokens_selected": cut.tokens_selected,
            "selector_fingerprint": selector_fingerprint,
        }
        for cut in cuts
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["thresholds"])


def require_fraction(fraction: float) -> float:
    """The fraction. Raises ValueError where it is outside (0, 1]."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction {fraction!r}: expected a number above 0, at most 1")
    return fraction


def selection_digest(connection: duckdb.DuckDBPyConnection) -> str:
    """A digest of the view `selected_subset` that changes with any row, whatever their order."""
    return rows_digest(connection, "selected_subset", ["selector_fingerprint", "domain", "shard", "doc_id", "score"])


def selected(connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str) -> pa.RecordBatchReader:
    """The `selected_subset` rows of that selector, streamed from the views `scores` and `thresholds`.

    Raises ValueError if the thresholds hold no row of that selector, or more than one for a domain.
    """
    ((n_domains,),) = connection.execute(
        "SELECT count(*) FROM thresholds WHERE selector_fingerprint = $1", [selector_fingerprint]
    ).fetchall()
    if not n_domains:
        raise ValueError(f"no thresholds by selector {selector_fingerprint}: materialize score_thresholds first")
    repeated = connection.execute(
        "SELECT domain FROM thresholds WHERE selector_fingerprint = $1 GROUP BY 1 HAVING count(*) > 1 ORDER BY 1",
        [selector_fingerprint],
    ).fetchone()
    if repeated:
        raise ValueError(f"thresholds: domain {repeated[0]!r} has several for selector {selector_fingerprint}")
    schema = TABLES["selected_subset"]
    rows = connection.sql(
        f"""
        SELECT {", ".join(schema.names)} FROM scores JOIN thresholds USING (domain, selector_fingerprint)
        WHERE selector_fingerprint = $fingerprint AND isfinite(score)
          AND (score > threshold_score OR (score = threshold_score AND doc_id >= threshold_doc_id))
        """,
        params={"fingerprint": selector_fingerprint},
    ).to_arrow_reader(65_536)
    return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in rows))
