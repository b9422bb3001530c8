"""The highest and lowest scores of a partition."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["highest_and_lowest"]


def highest_and_lowest(scores: pa.Table, *, n: int = 5) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The `n` highest rows by (score, doc_id), highest first, and the `n` lowest, lowest first; none is in both.

    Rows whose score is null or not finite have no rank.
    """
    ranked = pc.sort_indices(scores, [("score", "descending"), ("doc_id", "descending")]).to_numpy()
    ranked = ranked[np.isfinite(scores["score"].to_numpy())[ranked]]
    highest, lowest = ranked[:n], ranked[max(n, len(ranked) - n) :][::-1]
    return _rows(scores, highest), _rows(scores, lowest)


def _rows(scores: pa.Table, places: np.ndarray) -> list[dict[str, Any]]:
    return [row for place in places for row in scores.slice(int(place), 1).to_pylist()]
