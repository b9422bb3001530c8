"""Figures to show of a selection: scores enough for a picture, and what each domain contributes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import duckdb

__all__ = ["sampled_scores", "selected_by_domain"]

_PER_DOMAIN = 100_000  # more change no picture


def sampled_scores(
    connection: duckdb.DuckDBPyConnection, domains: Iterable[str], *, selector_fingerprint: str
) -> dict[str, np.ndarray]:
    """Finite scores of each domain by that selector, from the view `scores`: all, or some one to two hundred thousand.

    Which ones depends on the doc_ids alone. Each domain's array is float64, in no order.
    """
    rows = connection.execute(
        "SELECT domain, score FROM scores "
        "JOIN (SELECT domain, count(*) AS n FROM scores GROUP BY domain) USING (domain) "
        "WHERE selector_fingerprint = $1 AND isfinite(score) AND hash(doc_id) % greatest(1, n // $2) = 0",
        [selector_fingerprint, _PER_DOMAIN],
    ).fetchnumpy()
    return {domain: np.asarray(rows["score"][rows["domain"] == domain], dtype=float) for domain in domains}


def selected_by_domain(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The documents, tokens, lowest and mean score of each domain in the view `selected_subset`."""
    rows = connection.execute(
        "SELECT domain, count(*) AS documents, sum(n_tokens)::BIGINT AS tokens, min(score) AS lowest_score, "
        "avg(score) AS mean_score FROM selected_subset GROUP BY domain ORDER BY domain"
    )
    names = [column[0] for column in rows.description]
    return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
