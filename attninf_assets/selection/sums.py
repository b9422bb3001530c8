"""Sums over the stretches into which cuts divide a domain's scored documents, and what selections hold of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attninf_assets.selection.domain_cuts import DomainCut, ordinal_of
from attninf_assets.selection.stretches import COARSE_BIN, COUNTED, Bound, domain_places, stretch_of

if TYPE_CHECKING:
    import duckdb

__all__ = ["Sums", "held_between", "ranked", "sums_between"]

Cuts = Mapping[str, Sequence[DomainCut]]


@dataclass(frozen=True)
class Sums:
    """What a stretch of a domain's ranking holds."""

    documents: int = 0
    tokens: int = 0
    lowest: tuple[float, str] | None = None  # score and doc_id of its last document
    highest_score: float | None = None
    loss_base: float = 0.0  # sums over documents
    loss_reference: float = 0.0
    repetition: float = 0.0
    n_repetition: int = 0  # documents whose repetition is known

    def with_(self, other: Sums) -> Sums:
        """What the two hold together."""
        if self.lowest is None or other.lowest is None:
            return other if self.lowest is None else self
        assert self.highest_score is not None
        assert other.highest_score is not None
        return Sums(
            documents=self.documents + other.documents,
            tokens=self.tokens + other.tokens,
            lowest=min(self.lowest, other.lowest),
            highest_score=max(self.highest_score, other.highest_score),
            loss_base=self.loss_base + other.loss_base,
            loss_reference=self.loss_reference + other.loss_reference,
            repetition=self.repetition + other.repetition,
            n_repetition=self.n_repetition + other.n_repetition,
        )


def ranked(cuts: Sequence[DomainCut]) -> list[DomainCut]:
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
        SELECT domain, number, bin, count(*), sum(n_tokens)::BIGINT, min((score, doc_id)), max(score),
               fsum(loss_base), fsum(loss_reference), fsum({repetition}), count({repetition})
        FROM {relation} {features} GROUP BY domain, number, bin
        """,
        params | {"fingerprint": fingerprint},
    ).fetchall()
    sums = {domain: [Sums() for _ in range(len(of_domain) + 1)] for domain, of_domain in cuts.items()}
    for domain, number, coarse_bin, documents, tokens, (
        score,
        doc_id,
    ), highest, base, reference, repeated, known in rows:
        stretch = _stretch(cuts[domain], number, coarse_bin)
        found = Sums(documents, tokens, (score + 0.0, doc_id), highest + 0.0, base, reference, repeated or 0.0, known)
        sums[domain][stretch] = sums[domain][stretch].with_(found)
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
        "SELECT domain, selection, count(*) FROM selected_subset GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        if domain in cuts:
            held[domain, selection] = documents, [0] * (len(cuts[domain]) + 1)
    if not held:
        return {}
    relation, params = _placed(cuts, columns="domain, doc_id, score")
    rows = connection.execute(
        f"""
        SELECT domain, selection, number, bin, count(*)
        FROM {relation} JOIN (SELECT domain, doc_id, selection FROM selected_subset) AS kept
             USING (domain, doc_id)
        GROUP BY ALL
        """,
        params | {"fingerprint": fingerprint},
    ).fetchall()
    for domain, selection, number, coarse_bin, documents in rows:
        held[domain, selection][1][_stretch(cuts[domain], number, coarse_bin)] += documents
    return held


def _placed(cuts: Cuts, *, columns: str) -> tuple[str, dict[str, Any]]:
    """The counted documents of those domains as a relation, and its parameters.

    Most are told to be in a stretch by the coarse bin of their score alone, `bin`; where a cut is in the bin, that is
    null and `number` is the stretch.
    """
    places, params = domain_places(list(cuts))
    bounds = [[_bound(cut) for cut in of_domain] for of_domain in cuts.values()]
    number_of, of_bounds = stretch_of(bounds, [list(map(str, range(len(of_domain) + 1))) for of_domain in bounds])
    coarse = {(place, bound.coarse_bin) for place, of_domain in enumerate(bounds) for bound in of_domain}
    relation = f"""
        (SELECT *, CASE WHEN of_place IS NOT NULL THEN {number_of} END AS number,
                CASE WHEN of_place IS NULL THEN {COARSE_BIN} END AS bin
         FROM {COUNTED.format(columns=columns, among="")} AS counted JOIN {places} USING (domain)
         LEFT JOIN (VALUES {", ".join(map(str, sorted(coarse)))}) AS coarse(of_place, of_bin)
         ON place = of_place AND {COARSE_BIN} = of_bin) AS placed
    """
    return relation, params | of_bounds


def _bound(cut: DomainCut) -> Bound:
    return Bound(ordinal_of(cut.score), cut.doc_id)


def _stretch(cuts: Sequence[DomainCut], number: int | None, coarse_bin: int | None) -> int:
    """The number of the stretch, told by a bin in which there is no cut if not by itself."""
    if number is not None:
        return number
    assert coarse_bin is not None
    return sum(1 for cut in cuts if _bound(cut).coarse_bin > coarse_bin)
