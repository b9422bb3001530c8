"""What must hold of the index, looked up in its tables and not in the code that wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


__all__ = ["refusal_reasons", "repeated_ids"]


def refusal_reasons(connection: duckdb.DuckDBPyConnection, *, most: int = 10) -> dict[str, int]:
    """From the view `quarantine`: the commonest reasons for which rows were refused, and how many rows each."""
    reasons = "SELECT reason, count(*) FROM quarantine GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $1"
    return dict(connection.execute(reasons, [most]).fetchall())


def repeated_ids(connection: duckdb.DuckDBPyConnection, *, shard: str, most: int = 10) -> dict[str, int]:
    """From the view `documents` of one domain: ids of the shard that occur more than once in the domain, and how often.

    No more than `most` of them.
    """
    repeated = connection.execute(
        "SELECT doc_id, count(*) FROM documents WHERE doc_id IN (SELECT doc_id FROM documents WHERE shard = $1) "
        "GROUP BY 1 HAVING count(*) > 1 LIMIT $2",
        [shard, most],
    )
    return dict(repeated.fetchall())
