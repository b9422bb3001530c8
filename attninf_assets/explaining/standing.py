"""Where a document stands: its rank in its domain, and for every selection whether it is in and what decided."""

import math
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from attninf_assets.explaining.lookup import StoredDocument
from attninf_assets.selection.documents_to_read import selection_of
from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake

__all__ = ["Rank", "Verdict", "rank_in_domain", "verdicts"]


@dataclass(frozen=True)
class Rank:
    """The place of a document among its domain's documents with a score by the selector, by (score, doc_id)."""

    rank: int  # 1 is the highest
    n_ranked: int

    @property
    def percentile(self) -> float:
        """The share in percent of the domain's ranked documents that it is above of, itself counted half."""
        return 100 * (self.n_ranked - self.rank + 0.5) / self.n_ranked


@dataclass(frozen=True)
class Verdict:
    """What a selection says of a document."""

    selection: str
    is_in: bool
    reason: str  # a clause that follows "in: " or "out: "
    threshold_score: float | None = None
    threshold_doc_id: str | None = None
    kept: str | None = None  # "7 of 33 documents are kept"


def rank_in_domain(lake: Lake, document: StoredDocument, *, selector_fingerprint: str) -> Rank | None:
    """The document's rank; None where it has no finite score by that selector."""
    row = document.scored
    if row is None or row["selector_fingerprint"] != selector_fingerprint or not _is_finite(row["score"]):
        return None
    with connect(lake, "scores", where={"domain": document.domain}) as connection:
        ((above, n_ranked),) = connection.execute(
            "SELECT count_if((score, doc_id) > ($2::DOUBLE, $3::VARCHAR)), count(*) FROM scores "
            "WHERE selector_fingerprint = $1 AND isfinite(score)",
            [selector_fingerprint, row["score"], document.doc_id],
        ).fetchall()
    return Rank(int(above) + 1, int(n_ranked))


def verdicts(lake: Lake, document: StoredDocument, *, selector_fingerprint: str) -> list[Verdict]:
    """What every selection that has a threshold in the domain says of the document, by name."""
    rows = lake.read("thresholds", only=pc.field("domain") == document.domain).to_pylist()
    kept = lake.read(
        "selected_subset", where={"domain": document.domain}, only=pc.field("doc_id") == document.doc_id
    ).to_pylist()
    chosen = {selection_of(row): row for row in kept}
    return sorted(
        (_verdict(document, row, selector_fingerprint, chosen.get(selection_of(row))) for row in rows),
        key=lambda verdict: verdict.selection,
    )


def _verdict(
    document: StoredDocument, row: dict[str, Any], fingerprint: str, selected: dict[str, Any] | None
) -> Verdict:
    kept = f"{row['n_selected']:,} of {row['n_documents']:,} documents are kept"
    is_in = selected is not None
    reason = _not_ranked(document, row, fingerprint) or _ranked(document, row, selected)
    return Verdict(selection_of(row), is_in, reason, row["threshold_score"], row["threshold_doc_id"], kept)


def _not_ranked(document: StoredDocument, row: dict[str, Any], fingerprint: str) -> str | None:
    """Why the document cannot be compared with the threshold; None where it can be."""
    scored = document.scored
    if scored is None:
        return "it has no score yet"
    if scored["selector_fingerprint"] != fingerprint:
        return "its score is by another selector than the one in use"
    if row["selector_fingerprint"] != fingerprint:
        return "the threshold is by another selector than the one in use; materialize score_thresholds"
    if not _is_finite(scored["score"]):
        return "it has no loss to speak of, so its score is null, and a null score is never selected"
    return None


def _ranked(document: StoredDocument, row: dict[str, Any], selected: dict[str, Any] | None) -> str:
    """How the document compares with the threshold, and what else decided where that does not say it."""
    assert document.scored is not None
    score, cut, rules = document.scored["score"], row["threshold_score"], row.get("definition")
    key = row.get("threshold_key")
    if key is not None and key != cut:
        if selected is not None:
            return f"the selection ranks it by {selected['order_key']:.4f}, and down to {key:.4f} all is kept"
        return f"the selection, {rules}, ranks it below {key:.4f}, or filters it out"
    above = (score, document.doc_id) >= (cut, row["threshold_doc_id"])
    if document.doc_id == row["threshold_doc_id"] and score == cut:
        rule = "the threshold itself: the last one that is kept"
    elif score == cut:
        rule = f"the threshold's, and its doc_id comes {'after' if above else 'before'} the threshold's"
    else:
        rule = f"{'above' if above else 'below'} the threshold, {cut:.4f}"
    reason = f"its score {score:.4f} is {rule}"
    if above == (selected is not None):
        return reason
    stale = "selected_subset is not of this threshold: materialize it"
    return f"{reason}, but {stale}" + (f"; or the selection, {rules}, filters it out" if rules and above else "")


def _is_finite(score: float | None) -> bool:
    return score is not None and math.isfinite(score)
