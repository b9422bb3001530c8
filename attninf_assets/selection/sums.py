"""Sums over the stretches into which cuts divide a domain's scored documents, and what selections hold of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attninf_assets.selection.cuts import Cut, ordinal_of
from attninf_assets.selection.named import NAME_OF_ROW
from attninf_assets.selection.stretches import COUNTED, Bound, domain_places, first_reached

if TYPE_CHECKING:
    import duckdb

__all__ = ["Sums", "held_between", "ranked", "sums_between"]

Cuts = Mapping[str, Sequence[Cut]]


@dataclass(frozen=True)
class Sums:
    """What a stretch of a domain's ranking holds."""

    documents: int = 0
    tokens: int = 0
    lowest_score: float | None = None
    lowest_doc_id: str | None = None  # of its last document
    highest_score: float | None = None
    loss_base: float = 0.0  # sums over documents
    loss_reference: float = 0.0
    repetition: float = 0.0
    n_repetition: int = 0  # documents whose repetition is known


def ranked(cuts: Sequence[Cut]) -> list[Cut]:
    """The cuts of a domain from the highest down, each once."""
    places = {(cut.score, cut.doc_id): cut for cut in cuts}
    return [places[place] for place in sorted(places, reverse=True)]


def sums_between(
    connection: duckdb.DuckDBPyConnection, fingerprint: str, cuts: Cuts, *, with_repetition: bool
) -> dict[str, list[Sums]]:
    """Of every domain in `cuts`: the sums down to its first cut, between each two, and below the last.

    `cuts` are those of a domain from the highest down; one more stretch than there are cuts. Reads the view `scores`,
    and `document_features` where repetition is asked for.
    """
    features = "LEFT JOIN document_features USING (domain, shard, doc_id)" if with_repetition else ""
    repetition = "repetition" if with_repetition else "NULL::DOUBLE"
    relation, params = _placed(cuts, columns="domain, shard, doc_id, n_tokens, score, loss_base, loss_reference")
    rows = connection.execute(
        f"""
        SELECT domain, number, count(*), sum(n_tokens)::BIGINT, min((score, doc_id)), max(score),
               fsum(loss_base), fsum(loss_reference), fsum({repetition}), count({repetition})
        FROM {relation} {features} GROUP BY domain, number
        """,
        params | {"fingerprint": fingerprint},
    ).fetchall()
    sums = {domain: [Sums() for _ in range(len(of_domain) + 1)] for domain, of_domain in cuts.items()}
    for domain, number, documents, tokens, (lowest, doc_id), highest, base, reference, repeated, known in rows:
        sums[domain][number] = Sums(
            documents, tokens, lowest + 0.0, doc_id, highest + 0.0, base, reference, repeated or 0.0, known
        )
    return sums


def held_between(
    connection: duckdb.DuckDBPyConnection, fingerprint: str, cuts: Cuts
) -> dict[tuple[str, str], tuple[int, list[int]]]:
    """By (domain, selection) of the view `selected_subset`: how many documents it holds, and how many of each stretch.

    Stretches are those of `sums_between`, by the scores that documents have now; a selected one without score is in
    none.
    """
    held: dict[tuple[str, str], tuple[int, list[int]]] = {}
    for domain, selection, documents in connection.execute(
        f"SELECT domain, {NAME_OF_ROW} AS selection, count(*) FROM selected_subset GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        if domain in cuts:
            held[domain, selection] = documents, [0] * (len(cuts[domain]) + 1)
    if not held:
        return {}
    relation, params = _placed(cuts, columns="domain, doc_id, score")
    rows = connection.execute(
        f"""
        SELECT domain, selection, number, count(*)
        FROM {relation} JOIN (SELECT domain, doc_id, {NAME_OF_ROW} AS selection FROM selected_subset) AS kept
             USING (domain, doc_id)
        GROUP BY ALL
        """,
        params | {"fingerprint": fingerprint},
    ).fetchall()
    for domain, selection, number, documents in rows:
        held[domain, selection][1][number] = documents
    return held


def _placed(cuts: Cuts, *, columns: str) -> tuple[str, dict[str, Any]]:
    """The counted documents of those domains with the `number` of their stretch, as a relation and its parameters."""
    places, params = domain_places(list(cuts))
    bounds: list[Bound] = []
    numbers: list[str] = []
    for place, of_domain in enumerate(cuts.values()):
        bounds += [Bound(place, ordinal_of(cut.score), cut.doc_id) for cut in of_domain] + [Bound(place, None)]
        numbers += map(str, range(len(of_domain) + 1))
    number_of, of_bounds = first_reached(bounds, numbers)
    counted = COUNTED.format(columns=columns, among="")
    return f"(SELECT *, {number_of} AS number FROM {counted} AS counted JOIN {places} USING (domain)) AS placed", (
        params | of_bounds
    )
