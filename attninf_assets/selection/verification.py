"""Queries that verify a selection; they look in the tables and share no code with what wrote them."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


__all__ = ["domains_not_as_counted", "domains_not_at_their_fraction", "require_thresholds_of_the_scores"]


def domains_not_at_their_fraction(
    connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str | None = None
) -> list[str]:
    """Domains of the view `thresholds` whose row is not what the view `scores` says, sorted.

    What is at or above a threshold must reach the asked fraction of the domain's finite scores, or of their tokens,
    and without the last document it must not; that document must be there once; and all counts must be right.
    Looked at are the rows of one selector, or all.
    """
    counted = connection.execute(
        """
        WITH ranked AS (
          SELECT domain, fraction, budget, n_documents, n_selected, tokens_total, tokens_selected, doc_id, n_tokens,
                 (score, doc_id) >= (threshold_score, threshold_doc_id) AS kept,
                 (score, doc_id) = (threshold_score, threshold_doc_id) AS last
          FROM (SELECT * FROM thresholds WHERE coalesce(selector_fingerprint = $1, true)) LEFT JOIN
               (SELECT * FROM scores WHERE isfinite(score)) USING (domain, selector_fingerprint))
        SELECT domain, fraction, budget, (n_documents, n_selected, tokens_total, tokens_selected),
               (count(doc_id), count_if(kept), coalesce(sum(n_tokens), 0)::BIGINT,
                coalesce(sum(n_tokens) FILTER (kept), 0)::BIGINT),
               (count_if(last), coalesce(sum(n_tokens) FILTER (last), 0)::BIGINT)
        FROM ranked GROUP BY ALL ORDER BY domain
        """,
        [selector_fingerprint],
    ).fetchall()
    return [
        domain
        for domain, fraction, budget, stored, (documents, kept, tokens, tokens_kept), (n_last, last_tokens) in counted
        for whole, reached, last in [
            (documents, kept, n_last) if budget == "documents" else (tokens, tokens_kept, last_tokens)
        ]
        if stored != (documents, kept, tokens, tokens_kept)
        or n_last != 1
        or not reached - last < Fraction(str(fraction)) * whole <= reached
    ]


def require_thresholds_of_the_scores(connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str) -> None:
    """Raise `ValueError`, naming the domains, where that selector's rows of the view `thresholds` are not what the view
    `scores` gives."""
    if differing := domains_not_at_their_fraction(connection, selector_fingerprint=selector_fingerprint):
        raise ValueError(
            f"the thresholds of {', '.join(differing)} are not of the scores that there are now: materialize "
            "score_thresholds again"
        )


def domains_not_as_counted(connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str) -> list[str]:
    """Domains of which the view `selected_subset` does not hold what the view `thresholds` counts, sorted.

    It must hold as many documents and tokens, no document twice, and all by that selector.
    """
    differing = connection.execute(
        """
        SELECT domain FROM thresholds FULL JOIN
          (SELECT domain, count(*) AS n, count(DISTINCT doc_id) AS ids, sum(n_tokens) AS tokens,
                  bool_and(selector_fingerprint = $1) AS one FROM selected_subset GROUP BY 1) AS s USING (domain)
        WHERE n IS DISTINCT FROM n_selected OR ids IS DISTINCT FROM n OR tokens IS DISTINCT FROM tokens_selected
           OR NOT one
        ORDER BY domain
        """,
        [selector_fingerprint],
    ).fetchall()
    return [domain for (domain,) in differing]
