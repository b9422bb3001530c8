"""Bands of equal tokens: each domain's scored documents, in the order of their scores, cut into twentieths.

A band begins where the one above it ends, and ends with the first document by which all down to it have so many
twentieths of the domain's tokens. So it has a twentieth to within one document, and none where one document is larger.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from attninf_assets.selection.domain_cuts import DomainCut, Target, find_many_cuts
from attninf_assets.selection.sums import Sums, sums_between
from attninf_assets.store.schemas import TABLES

if TYPE_CHECKING:
    import duckdb

__all__ = ["BANDS", "N_BANDS", "score_bands"]

N_BANDS = 20
_PERCENT = 100 // N_BANDS
BANDS = tuple(f"{_PERCENT * number}-{_PERCENT * (number + 1)}" for number in range(N_BANDS))  # the best ones first
_DECIMALS = 9  # of means: sums of floats differ in their last digits from one scan to the next


def score_bands(
    connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str, with_repetition: bool = False
) -> pa.Table:
    """The rows of `score_bands` of every domain that has a finite score by that selector, from the view `scores`.

    Twenty for each, whose documents are all of the domain's. With repetition, which is that of the view
    `document_features`. Raises ValueError as `find_thresholds` does.
    """
    targets = [Target(Fraction(number, N_BANDS), by_tokens=True) for number in range(1, N_BANDS)]
    found = find_many_cuts(connection, selector_fingerprint, targets)
    borders: dict[str, list[DomainCut]] = {}
    for target in targets:
        for cut in found[target]:
            borders.setdefault(cut.domain, []).append(cut)
    sums = {}
    if borders:
        sums = sums_between(connection, selector_fingerprint, borders, with_repetition=with_repetition)
    rows = [
        {
            "domain": domain,
            "band": BANDS[number],
            "band_number": number + 1,
            "selector_fingerprint": selector_fingerprint,
        }
        | _figures(band)
        for domain, bands in sorted(sums.items())
        for number, band in enumerate(bands)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["score_bands"])


def _figures(band: Sums) -> dict[str, Any]:
    def mean(total: float, n: int) -> float | None:
        return round(total / n, _DECIMALS) if n else None

    return {
        "n_documents": band.documents,
        "n_tokens": band.tokens,
        "lowest_score": None if band.lowest is None else band.lowest[0],
        "lowest_doc_id": None if band.lowest is None else band.lowest[1],
        "highest_score": band.highest_score,
        "mean_loss_base": mean(band.loss_base, band.documents),
        "mean_loss_reference": mean(band.loss_reference, band.documents),
        "mean_tokens": mean(band.tokens, band.documents),
        "mean_repetition": mean(band.repetition, band.n_repetition),
    }
