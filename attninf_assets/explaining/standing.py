"""Where a document stands: its rank in its domain, and for every selection whether it is in and what decided."""

import json
import math
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from attninf_assets.explaining.lookup import StoredDocument
from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake

__all__ = ["Rank", "Verdict", "rank_in_domain", "verdicts"]

DEFAULT_SELECTION = "paper"


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
    chosen = {_selection(row) for row in kept}
    return sorted(
        (_verdict(document, row, selector_fingerprint, is_in=_selection(row) in chosen) for row in rows),
        key=lambda verdict: verdict.selection,
    )


def _selection(row: dict[str, Any]) -> str:
    return str(row.get("selection") or DEFAULT_SELECTION)


def _verdict(document: StoredDocument, row: dict[str, Any], fingerprint: str, *, is_in: bool) -> Verdict:
    kept = f"{row['n_selected']:,} of {row['n_documents']:,} documents are kept"
    reason = _reason(document, row, fingerprint, is_in=is_in)
    return Verdict(_selection(row), is_in, reason, row["threshold_score"], row["threshold_doc_id"], kept)


def _reason(document: StoredDocument, row: dict[str, Any], fingerprint: str, *, is_in: bool) -> str:
    scored = document.scored
    if scored is None:
        return "it has no score yet"
    if scored["selector_fingerprint"] != fingerprint:
        return "its score is by another selector than the one in use"
    if row["selector_fingerprint"] != fingerprint:
        return "the threshold is by another selector than the one in use; materialize score_thresholds"
    score, cut = scored["score"], row["threshold_score"]
    if not _is_finite(score):
        return "it has no loss to speak of, so its score is null, and a null score is never selected"
    by = f"its score {score:.4f} is"
    above = (score, document.doc_id) >= (cut, row["threshold_doc_id"])
    if document.doc_id == row["threshold_doc_id"] and score == cut:
        rule = f"{by} the threshold itself: the last one that is kept"
    elif score == cut:
        rule = f"{by} the threshold's, and its doc_id comes {'after' if above else 'before'} the threshold's"
    else:
        rule = f"{by} {'above' if above else 'below'} the threshold, {cut:.4f}"
    if above == is_in:
        return rule
    return f"{rule}, but {_beside(row, is_in=is_in)}"


def _beside(row: dict[str, Any], *, is_in: bool) -> str:
    """Why the score alone does not decide: the selection's own rules, or a selection older than its threshold."""
    definition = row.get("definition")
    stale = "selected_subset is older than the threshold: materialize it"
    if not definition:
        return stale
    written = json.dumps(json.loads(definition), sort_keys=True) if isinstance(definition, str) else str(definition)
    how = "keeps" if is_in else "leaves out"
    return f"the selection's own rules decide ({written}), which {how} it; or {stale}"


def _is_finite(score: float | None) -> bool:
    return score is not None and math.isfinite(score)
