"""Queries that verify a partition's scores; they look in the tables and share no code with what wrote them.

Every function reads views that hold one partition alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attninf_assets.influence.document_score import NO_LOSS
from attninf_assets.store.query import count_rows

if TYPE_CHECKING:
    import duckdb

__all__ = ["Mismatch", "count_unscorable", "count_wrong_losses", "count_wrong_scores", "fingerprints", "mismatch"]

_ROUNDING = 1e-12  # both are computed from the same 64-bit numbers


@dataclass(frozen=True)
class Mismatch:
    """Counts of scores that are missing or too many: there should be one for every indexed document and its text."""

    unscored: int  # documents without such a row
    orphaned: int  # rows that are of no indexed document, or of another text of it
    repeated: int  # rows beyond the first of a document

    @property
    def none(self) -> bool:
        """Whether there is no mismatch."""
        return self == Mismatch(0, 0, 0)


def mismatch(connection: duckdb.DuckDBPyConnection) -> Mismatch:
    """How far the views `documents` and `scores` of a partition are apart."""
    (row,) = connection.execute(
        """
        SELECT (SELECT count(*) FROM documents ANTI JOIN scores USING (doc_id, text_sha256)),
               (SELECT count(*) FROM scores ANTI JOIN documents USING (doc_id, text_sha256)),
               (SELECT count(*) - count(DISTINCT doc_id) FROM scores)
        """
    ).fetchall()
    return Mismatch(*row)


def count_wrong_losses(connection: duckdb.DuckDBPyConnection) -> int:
    """The number of rows of the view `scores` with a wrong loss or score.

    Wrong is a loss that is negative or not finite, and a score that is neither null nor finite.
    """
    return count_rows(
        connection,
        "scores WHERE NOT (isfinite(loss_base) AND isfinite(loss_reference) AND loss_base >= 0 "
        "AND loss_reference >= 0 AND (score IS NULL OR isfinite(score)))",
    )


def count_wrong_scores(connection: duckdb.DuckDBPyConnection) -> int:
    """From the view `scores`: rows whose score is not (loss_reference - loss_base) / loss_base to rounding, or is null
    although there is a loss to speak of, or is a number although there is none."""
    return count_rows(
        connection,
        f"""scores WHERE NOT CASE WHEN loss_base >= {NO_LOSS} THEN score IS NOT NULL
            AND abs(score - (loss_reference - loss_base) / loss_base) <= {_ROUNDING} * greatest(1, abs(score))
            ELSE score IS NULL END""",
    )


def count_unscorable(connection: duckdb.DuckDBPyConnection) -> int:
    """The number of documents of the view `scores` with a null score, which have no tokens or no loss to speak of."""
    return count_rows(connection, "scores WHERE score IS NULL")


def fingerprints(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The fingerprints of all selectors that rows of the view `scores` are by, sorted."""
    found = connection.execute("SELECT DISTINCT selector_fingerprint FROM scores ORDER BY 1").fetchall()
    return [fingerprint for (fingerprint,) in found]
