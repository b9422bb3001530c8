"""Which stored scores are current: made by the selector in use, of the very text that is indexed. All others are stale.

A score becomes stale when the selector's fingerprint changes, or the sha256 of its document's text. Nothing else, no
clock and no event, makes it so.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["SAME_TEXT", "are_of_the_same_texts", "current_rows", "made_by"]

SAME_TEXT = ["doc_id", "text_sha256"]  # what a score and an indexed document have in common if it is of that text


def made_by(selector_fingerprint: str) -> pc.Expression:
    """Whether a row of the table `scores` was made by that selector."""
    return pc.field("selector_fingerprint") == selector_fingerprint


def current_rows(index: pa.Table, scores: pa.Table) -> npt.NDArray[np.int64]:
    """For each of the N indexed documents, the row of `scores` that is of its id and its text; -1 where none is.

    `scores` are all by the selector in use. Both tables have the columns `SAME_TEXT`.
    """
    place = pc.index_in(scores["doc_id"], value_set=index["doc_id"])
    same_text = pc.equal(scores["text_sha256"], index["text_sha256"].take(place))
    found = pc.indices_nonzero(pc.fill_null(same_text, False))
    rows_N = np.full(len(index), -1)
    rows_N[place.take(found).to_numpy()] = found.to_numpy()
    return rows_N


def are_of_the_same_texts(scores: Iterable[pa.RecordBatch], index: Iterable[pa.RecordBatch]) -> bool:
    """Whether scores and indexed documents are the same ids with the same texts, in any order.

    Batches of the columns `SAME_TEXT`. They are compared by 64-bit hashes of their rows, 8 bytes a document in memory.
    """
    return np.array_equal(_row_hashes(scores), _row_hashes(index))


def _row_hashes(batches: Iterable[pa.RecordBatch]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each row, sorted: equal for equal rows in any order, and hardly ever else."""
    hashes = [pl.DataFrame(pl.from_arrow(batch)).hash_rows().to_numpy() for batch in batches]
    return np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))
