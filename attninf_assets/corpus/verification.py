"""Queries that verify the index; they look in its tables and share no code with what wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


__all__ = ["refusal_reasons", "repeated_ids"]


def refusal_reasons(connection: duckdb.DuckDBPyConnection, *, most: int = 10) -> dict[str, int]:
    """The commonest reasons for which rows of the view `quarantine` were refused, and how many rows each."""
    reasons = "SELECT reason, count(*) FROM quarantine GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $1"
    return dict(connection.execute(reasons, [most]).fetchall())


def repeated_ids(connection: duckdb.DuckDBPyConnection, *, shard: str, most: int = 10) -> dict[str, int]:
    """The ids of the shard's documents that occur more than once in their domain, and how often.

    Reads the view `documents`, which holds one domain. Returns at most `most` ids.
    """
    repeated = connection.execute(
        "SELECT doc_id, count(*) FROM documents WHERE doc_id IN (SELECT doc_id FROM documents WHERE shard = $1) "
        "GROUP BY 1 HAVING count(*) > 1 LIMIT $2",
        [shard, most],
    )
    return dict(repeated.fetchall())
