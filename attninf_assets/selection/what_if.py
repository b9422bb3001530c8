"""What a selection would be at other fractions: thresholds, sizes, and overlap with the selections that there are.

Nothing is selected and nothing written. A row here is what `find_thresholds` gives at that fraction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from attninf_assets.selection.definitions import Budget
from attninf_assets.selection.domain_cuts import DomainCut, Target, find_many_cuts
from attninf_assets.selection.sums import Sums, held_between, ranked, sums_between

if TYPE_CHECKING:
    import duckdb

__all__ = ["FRACTIONS", "Overlap", "WhatIf", "what_if"]

FRACTIONS = (0.01, 0.02, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.40, 0.50, 0.60, 0.70)
_BUDGETS: tuple[Budget, ...] = ("documents", "tokens")


def require_fraction(fraction: float) -> float:
    """The fraction. Raises ValueError where it is outside (0, 1]."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction {fraction!r}: expected a number above 0, at most 1")
    return fraction


@dataclass(frozen=True)
class Overlap:
    """What a selection that there is has in common with one that would be."""

    selection: str
    documents: int  # in common
    share: float  # of the documents that would be selected, those in common
    jaccard: float  # documents in common, of those in either


@dataclass(frozen=True)
class WhatIf:
    """The selection of a domain that a fraction would give."""

    domain: str
    budget: Budget
    fraction: float
    documents: int
    tokens: int
    n_documents: int  # of the domain, with a finite score
    tokens_total: int
    threshold_score: float
    threshold_doc_id: str
    mean_tokens: float  # of a document
    mean_repetition: float | None  # None where no document's is known
    overlaps: tuple[Overlap, ...]  # by name of the selection


def what_if(
    connection: duckdb.DuckDBPyConnection,
    *,
    selector_fingerprint: str,
    fractions: Sequence[float] = FRACTIONS,
    with_repetition: bool = False,
) -> list[WhatIf]:
    """A row for each domain, budget and fraction, in this order, from the views `scores` and `selected_subset`.

    With repetition, which is that of the view `document_features`. Takes a few scans, and memory that does not grow
    with the scores. Raises ValueError for a fraction outside (0, 1], and as `find_thresholds` does.
    """
    asked = {
        (budget, fraction): Target.of(require_fraction(fraction), by_tokens=budget == "tokens")
        for budget in _BUDGETS
        for fraction in sorted(set(fractions))
    }
    found = find_many_cuts(connection, selector_fingerprint, list(dict.fromkeys(asked.values())))
    at = {(cut.domain, target): cut for target, cuts in found.items() for cut in cuts}
    domains = sorted({domain for domain, _ in at})
    cuts = {domain: ranked([cut for (of, _), cut in at.items() if of == domain]) for domain in domains}
    held = held_between(connection, selector_fingerprint, cuts) if cuts else {}
    sums = sums_between(connection, selector_fingerprint, cuts, with_repetition=True) if with_repetition else {}
    rows = []
    for domain in domains:
        places = [(cut.score, cut.doc_id) for cut in cuts[domain]]
        repetition = _mean_repetition_down_to(sums.get(domain, []))
        counts = {
            selection: (n, list(accumulate(of)))
            for (of_domain, selection), (n, of) in held.items()
            if of_domain == domain
        }
        for (budget, fraction), target in asked.items():
            cut = at[domain, target]
            place = places.index((cut.score, cut.doc_id))
            overlaps = tuple(_overlap(name, cut, n, common[place]) for name, (n, common) in counts.items())
            rows.append(_row(cut, budget, fraction, repetition[place] if repetition else None, overlaps))
    return rows


def _row(
    cut: DomainCut, budget: Budget, fraction: float, mean_repetition: float | None, overlaps: tuple[Overlap, ...]
) -> WhatIf:
    return WhatIf(
        domain=cut.domain,
        budget=budget,
        fraction=fraction,
        documents=cut.n_selected,
        tokens=cut.tokens_selected,
        n_documents=cut.n_documents,
        tokens_total=cut.tokens_total,
        threshold_score=cut.score,
        threshold_doc_id=cut.doc_id,
        mean_tokens=cut.tokens_selected / cut.n_selected,
        mean_repetition=mean_repetition,
        overlaps=overlaps,
    )


def _overlap(selection: str, cut: DomainCut, n_held: int, common: int) -> Overlap:
    either = cut.n_selected + n_held - common
    return Overlap(selection, common, common / cut.n_selected, common / either)


def _mean_repetition_down_to(sums: Sequence[Sums]) -> list[float | None]:
    """Of all documents down to each cut whose repetition is known."""
    totals = accumulate(one.repetition for one in sums)
    known = accumulate(one.n_repetition for one in sums)
    return [total / n if n else None for total, n in zip(totals, known, strict=True)]
