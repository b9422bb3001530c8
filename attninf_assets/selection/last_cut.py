"""The last thresholds, held against one shard: how much of it they keep."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.selection.definitions import PAPER
from attninf_assets.store.tables import Lake

__all__ = ["Cut", "last_cut"]


@dataclass(frozen=True)
class Cut:
    """A domain's threshold: the score and doc_id of the last document kept."""

    score: float
    doc_id: str

    def share_of(self, scores: pa.Table) -> float:
        """The share of the rows, in the columns score and doc_id, that are kept; those without a finite score are not.

        Raises ZeroDivisionError where there are no rows.
        """
        score, doc_id = pc.field("score"), pc.field("doc_id")
        kept = (score > self.score) | ((score == self.score) & (doc_id >= self.doc_id))
        return scores.filter(pc.is_finite(score) & kept).num_rows / scores.num_rows


def last_cut(lake: Lake, domain: str, selector_fingerprint: str) -> Cut | None:
    """The domain's cut in the selection `paper`.

    None where there is none for scores by this selector, or it is defined by more than a cut of the scores.
    """
    of_domain = (pc.field("domain") == domain) & (pc.field("selector_fingerprint") == selector_fingerprint)
    by_score = (pc.field("threshold_key") == pc.field("threshold_score")) & (
        pc.field("n_eligible") == pc.field("n_documents")
    )
    columns = ["threshold_score", "threshold_doc_id"]
    rows = lake.read("thresholds", columns=columns, where={"selection": PAPER}, only=of_domain & by_score).to_pylist()
    return Cut(rows[0]["threshold_score"], rows[0]["threshold_doc_id"]) if rows else None
