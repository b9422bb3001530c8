"""The highest and lowest scores of a partition."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["highest_and_lowest"]


def highest_and_lowest(scores: pa.Table, *, n: int = 5) -> list[dict[str, Any]]:
    """The `n` highest and the `n` lowest rows by (score, doc_id), highest first; none twice where there are fewer.

    Rows whose score is null or not finite have no rank.
    """
    ranked = pc.sort_indices(scores, [("score", "descending"), ("doc_id", "descending")]).to_numpy()
    ranked = ranked[np.isfinite(scores["score"].to_numpy())[ranked]]
    ends = [*ranked[:n], *ranked[max(n, len(ranked) - n) :]]
    return [row for place in ends for row in scores.slice(int(place), 1).to_pylist()]
