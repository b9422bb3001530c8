"""Queries that verify a selection; they look in the tables.

Where documents rank by their scores and nothing is filtered, they share no code with what wrote the tables; elsewhere
they share the SQL of keys and filters.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from attninf_assets.selection.definitions import PAPER, SelectionDefinition
from attninf_assets.selection.thresholds import stored_rules

if TYPE_CHECKING:
    import duckdb


__all__ = [
    "domains_not_as_counted",
    "domains_not_at_their_fraction",
    "require_thresholds_of_the_definition",
    "require_thresholds_of_the_scores",
]


def domains_not_at_their_fraction(
    connection: duckdb.DuckDBPyConnection, *, selection: str = PAPER, selector_fingerprint: str | None = None
) -> list[str]:
    """Domains of a selection in the view `thresholds` whose row is not what the view `scores` says, sorted.

    What is at or above a threshold must reach the asked fraction or number of the documents that may be selected, or of
    their tokens, and without the last document it must not; that document must be there once; and all counts must be
    right. Looked at are the rows of one selector, or all.
    """
    stored = connection.execute(
        "SELECT DISTINCT selector_fingerprint, definition FROM thresholds "
        "WHERE selection = $1 AND coalesce(selector_fingerprint = $2, true)",
        [selection, selector_fingerprint],
    ).fetchall()
    wrong: set[str] = set()
    for fingerprint, text in stored:
        definition = SelectionDefinition.from_json(text)
        if _is_plain(definition):
            wrong.update(_not_at_their_fraction(connection, selection, fingerprint))
        else:
            wrong.update(_not_as_ruled(connection, selection, fingerprint, definition))
    return sorted(wrong)


def _is_plain(definition: SelectionDefinition) -> bool:
    beside = definition.where or definition.bands or definition.temperature or definition.lengths()
    return definition.order == "score" and not beside


def _not_at_their_fraction(connection: duckdb.DuckDBPyConnection, selection: str, fingerprint: str) -> list[str]:
    counted = connection.execute(
        """
        WITH ranked AS (
          SELECT domain, fraction, budget, wanted, n_documents, n_selected, tokens_total, tokens_selected, n_eligible,
                 tokens_eligible, doc_id, n_tokens, (score, doc_id) >= (threshold_score, threshold_doc_id) AS kept,
                 (score, doc_id) = (threshold_score, threshold_doc_id) AS last
          FROM (SELECT * FROM thresholds WHERE selection = $1 AND selector_fingerprint = $2) LEFT JOIN
               (SELECT * FROM scores WHERE isfinite(score)) USING (domain, selector_fingerprint))
        SELECT domain, fraction, budget, wanted,
               (n_documents, n_selected, tokens_total, tokens_selected, n_eligible, tokens_eligible),
               (count(doc_id), count_if(kept), coalesce(sum(n_tokens), 0)::BIGINT,
                coalesce(sum(n_tokens) FILTER (kept), 0)::BIGINT),
               (count_if(last), coalesce(sum(n_tokens) FILTER (last), 0)::BIGINT)
        FROM ranked GROUP BY ALL ORDER BY domain
        """,
        [selection, fingerprint],
    ).fetchall()
    return [
        domain
        for domain, fraction, budget, wanted, stored, found, (n_last, last_tokens) in counted
        for documents, kept, tokens, tokens_kept in [found]
        for whole, reached, last in [
            (documents, kept, n_last) if budget == "documents" else (tokens, tokens_kept, last_tokens)
        ]
        if stored != (documents, kept, tokens, tokens_kept, documents, tokens)
        or n_last != 1
        or not reached - last < (Fraction(str(fraction)) * whole if wanted is None else wanted) <= reached
    ]


def _not_as_ruled(
    connection: duckdb.DuckDBPyConnection, selection: str, fingerprint: str, definition: SelectionDefinition
) -> list[str]:
    rules = stored_rules(connection, selector_fingerprint=fingerprint, selection=selection)
    rules.eligible.prepare(connection)
    rules.put_into(connection)
    scored = {
        domain: (n, tokens)
        for domain, n, tokens in connection.execute(
            f"SELECT domain, count(*), sum(n_tokens)::BIGINT FROM scores WHERE {rules.eligible.scored} GROUP BY 1"
        ).fetchall()
    }
    eligible = {
        domain: (n, tokens)
        for domain, n, tokens in connection.execute(
            f"SELECT domain, count(*), sum(n_tokens)::BIGINT FROM {rules.ranked} WHERE isfinite(key) GROUP BY 1"
        ).fetchall()
    }
    in_parts = definition.order == "score_at_matched_length"
    kept = {
        domain: found
        for domain, *found in connection.execute(
            f"SELECT domain, count(*), sum(n_tokens)::BIGINT, min((key, doc_id)), "
            f"{'max(n_tokens)' if in_parts else 'arg_min(n_tokens, (key, doc_id))'} "
            f"FROM {rules.selected} GROUP BY 1"
        ).fetchall()
    }
    stored = connection.execute(
        "SELECT domain, fraction, budget, wanted, (n_documents, tokens_total), (n_eligible, tokens_eligible), "
        "n_selected, tokens_selected, threshold_key, threshold_doc_id FROM thresholds "
        "WHERE selection = $1 AND selector_fingerprint = $2",
        [selection, fingerprint],
    ).fetchall()
    wrong = []
    for domain, fraction, budget, wanted, *counts, n_selected, tokens_selected, key, doc_id in stored:
        found = kept.get(domain, [0, 0, None, 0])
        if counts != [scored.get(domain), eligible.get(domain)] or found[:3] != [
            n_selected, tokens_selected, (key, doc_id),
        ]:  # fmt: skip
            wrong.append(domain)
            continue
        whole = counts[1][0 if budget == "documents" else 1]
        target = Fraction(str(fraction)) * whole if wanted is None else Fraction(wanted)
        if definition.bands is None and not _reaches(budget, n_selected, tokens_selected, found[3], target):
            wrong.append(domain)
    return wrong


def _reaches(budget: str, documents: int, tokens: int, last_tokens: int, target: Fraction) -> bool:
    """Whether what is selected reaches the target, and without the last document, or in parts the longest, does not."""
    reached, last = (documents, 1) if budget == "documents" else (tokens, last_tokens)
    return reached - last < target <= reached


def require_thresholds_of_the_definition(
    connection: duckdb.DuckDBPyConnection, definition: SelectionDefinition, *, selection: str
) -> None:
    """Raise `ValueError` where the selection's rows of the view `thresholds` are of another definition."""
    digests = connection.execute(
        "SELECT DISTINCT definition_digest FROM thresholds WHERE selection = $1", [selection]
    ).fetchall()
    if any(digest != definition.digest for (digest,) in digests):
        raise ValueError(
            f"selection {selection!r} was defined otherwise when its thresholds were found: materialize its "
            "score_thresholds again"
        )


def require_thresholds_of_the_scores(
    connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str, selection: str = PAPER
) -> None:
    """Raise `ValueError`, naming the domains, where that selector's rows of the view `thresholds` are not what the view
    `scores` gives."""
    differing = domains_not_at_their_fraction(
        connection, selection=selection, selector_fingerprint=selector_fingerprint
    )
    if differing:
        raise ValueError(
            f"the thresholds of {', '.join(differing)} are not of the scores that there are now: materialize "
            "score_thresholds again"
        )


def domains_not_as_counted(
    connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str, selection: str = PAPER
) -> list[str]:
    """Domains of which a selection in the view `selected_subset` is not what the view `thresholds` counts, sorted.

    It must hold as many documents and tokens, no document twice, and all by that selector.
    """
    differing: list[tuple[Any, ...]] = connection.execute(
        """
        SELECT domain FROM (SELECT * FROM thresholds WHERE selection = $2) FULL JOIN
          (SELECT domain, count(*) AS n, count(DISTINCT doc_id) AS ids, sum(n_tokens) AS tokens,
                  bool_and(selector_fingerprint = $1) AS one FROM selected_subset WHERE selection = $2 GROUP BY 1)
        AS s USING (domain)
        WHERE n IS DISTINCT FROM n_selected OR ids IS DISTINCT FROM n OR tokens IS DISTINCT FROM tokens_selected
           OR NOT one
        ORDER BY domain
        """,
        [selector_fingerprint, selection],
    ).fetchall()
    return [domain for (domain,) in differing]
