"""Two selections compared: what they have in common, how alike they rank it, and what entered and left.

A document is known by its domain and doc_id. Tokens may be counted by two tokenizers: common to both are the fewer, in
either are the more. The rank correlation is Spearman's, of the scores of the documents that both selected: exact for up
to two million of a domain, of as many drawn by their doc_ids where there are more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from attninf_assets.corpus.printable import shortened
from attninf_assets.selection.named import rows_of
from attninf_assets.selection.references import SelectionAt
from attninf_assets.selection.scored import MEMORY, nearest
from attninf_assets.store.query import connect
from attninf_assets.store.schemas import TABLES

if TYPE_CHECKING:
    import duckdb

__all__ = ["DomainComparison", "Moved", "compare"]

_MOST_CORRELATED = 2_000_000  # documents of a domain: Spearman's standard error is then below 0.001
_COLUMNS = ["domain", "shard", "doc_id", "n_tokens", "score", "order_key"]
_SCHEMA = pa.schema([pa.field(name, TABLES["selected_subset"].field(name).type) for name in _COLUMNS])


@dataclass(frozen=True)
class Moved:
    """A document that only one of two selections has.

    Its rank there bounds from below how far it moved: in the other one it comes after all that are selected.
    """

    domain: str
    shard: str
    doc_id: str
    score: float
    n_tokens: int
    rank: int  # among the documents of the domain in the selection that has it, 1 for the best
    selected: int  # how many these are


@dataclass(frozen=True)
class DomainComparison:
    """What became of a domain from one selection to another."""

    domain: str
    documents_before: int
    documents_after: int
    documents_common: int
    tokens_before: int
    tokens_after: int
    jaccard_documents: float
    jaccard_tokens: float
    spearman: float | None  # None of fewer than two documents, and where all have one score
    n_correlated: int  # documents that it is computed from
    n_entered: int
    n_left: int
    entered: tuple[Moved, ...]  # of those, the ones that moved most, by their rank
    left: tuple[Moved, ...]


def compare(
    before: SelectionAt, after: SelectionAt, *, top: int = 10, domain: str | None = None
) -> list[DomainComparison]:
    """The two selections compared, by domain, with at most `top` of the documents that entered and that left each.

    What does not fit into memory spills to local disk. Raises ValueError as `Lake.batches` does, for a negative `top`,
    and for a domain that neither has.
    """
    if top < 0:
        raise ValueError(f"top {top}: expected a number of documents, 0 or more")
    with connect(before.lake, memory_limit=MEMORY) as connection:
        for name, side in (("before", before), ("after", after)):
            batches = rows_of(side.lake, side.name, columns=_COLUMNS, domain=domain, version=side.version)
            reader = pa.RecordBatchReader.from_batches(_SCHEMA, (batch.cast(_SCHEMA) for batch in batches))
            connection.register("rows_of_side", reader)
            connection.execute(f"CREATE TEMP TABLE {name} AS FROM rows_of_side")
            connection.unregister("rows_of_side")
        found = [_compared(connection, row, top) for row in _counted(connection)]
    if domain is not None and not found:
        known = sorted({where["domain"] for where in after.lake.partitions("selected_subset")})
        raise ValueError(
            f"neither selection holds a document of domain {shortened(domain)!r}; {nearest(domain, known)}"
        )
    return found


def _counted(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    found = connection.execute(
        """
        SELECT domain, count(a.doc_id) AS documents_before, count(b.doc_id) AS documents_after,
               count(*) FILTER (a.doc_id IS NOT NULL AND b.doc_id IS NOT NULL) AS documents_common,
               coalesce(sum(a.n_tokens), 0)::BIGINT AS tokens_before,
               coalesce(sum(b.n_tokens), 0)::BIGINT AS tokens_after,
               coalesce(sum(least(a.n_tokens, b.n_tokens)) FILTER (a.doc_id IS NOT NULL AND b.doc_id IS NOT NULL), 0)
               ::BIGINT AS tokens_common,
               sum(greatest(a.n_tokens, b.n_tokens))::BIGINT AS tokens_either
        FROM before AS a FULL JOIN after AS b USING (domain, doc_id) GROUP BY domain ORDER BY domain
        """
    )
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _compared(connection: duckdb.DuckDBPyConnection, row: dict[str, Any], top: int) -> DomainComparison:
    domain, common = row["domain"], row["documents_common"]
    tokens_common, tokens_either = row.pop("tokens_common"), row.pop("tokens_either")
    spearman, n_correlated = _rank_correlation(connection, domain, common)
    n_entered, n_left = row["documents_after"] - common, row["documents_before"] - common
    return DomainComparison(
        **row,
        jaccard_documents=common / (common + n_entered + n_left),
        jaccard_tokens=tokens_common / tokens_either,
        spearman=spearman,
        n_correlated=n_correlated,
        n_entered=n_entered,
        n_left=n_left,
        entered=_moved(connection, domain, "after", "before", top) if n_entered and top else (),
        left=_moved(connection, domain, "before", "after", top) if n_left and top else (),
    )


def _rank_correlation(connection: duckdb.DuckDBPyConnection, domain: str, n: int) -> tuple[float | None, int]:
    """Spearman's, and of how many documents."""
    one_in = -(-n // _MOST_CORRELATED) or 1
    scores = connection.sql(
        "SELECT a.score + 0.0 AS a, b.score + 0.0 AS b FROM before AS a JOIN after AS b USING (domain, doc_id) "
        "WHERE domain = $domain AND hash(doc_id) % $one_in = 0",
        params={"domain": domain, "one_in": one_in},
    ).to_arrow_table()
    frame = pl.from_arrow(scores)
    assert isinstance(frame, pl.DataFrame)
    if len(frame) < 2:
        return None, len(frame)
    found = frame.select(pl.corr("a", "b", method="spearman")).item()
    return None if found is None or math.isnan(found) else round(found, 9), len(frame)


def _moved(connection: duckdb.DuckDBPyConnection, domain: str, has: str, lacks: str, top: int) -> tuple[Moved, ...]:
    """Of what one selection has and the other lacks, the first `top` by their rank."""
    rows = connection.execute(
        f"""
        WITH moved AS (
            SELECT {", ".join(_COLUMNS)} FROM {has} ANTI JOIN {lacks} USING (domain, doc_id)
            WHERE domain = $1 ORDER BY order_key DESC, doc_id DESC LIMIT $2)
        SELECT moved.domain, moved.shard, moved.doc_id, moved.score, moved.n_tokens,
               count(*) FILTER ((ours.order_key, ours.doc_id) >= (moved.order_key, moved.doc_id)), count(*)
        FROM moved JOIN {has} AS ours USING (domain) GROUP BY ALL
        ORDER BY any_value(moved.order_key) DESC, moved.doc_id DESC
        """,
        [domain, top],
    ).fetchall()
    return tuple(Moved(*row) for row in rows)
