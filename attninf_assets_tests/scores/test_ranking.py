"""The highest and the lowest scores, against a plain sort."""

import math

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.scores.ranking import highest_and_lowest

_SCORES = st.sampled_from([None, math.nan, math.inf, -math.inf, -1.0, 0.0, 0.25, 0.5, 3.0])


@settings(deadline=None)
@given(scores=st.lists(_SCORES, max_size=16), n=st.integers(1, 5), cut=st.integers(0, 16))
def test_the_ends_are_those_of_a_plain_sort(scores: list[float | None], n: int, cut: int) -> None:
    table = pa.table({"doc_id": [f"d{i}" for i in range(len(scores))], "score": pa.array(scores, pa.float64())})
    ranked = [row for row in table.to_pylist() if row["score"] is not None and math.isfinite(row["score"])]
    ranked.sort(key=lambda row: (row["score"], row["doc_id"]), reverse=True)
    in_chunks = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    highest, lowest = highest_and_lowest(in_chunks, n=n)
    assert highest == ranked[:n]
    assert lowest == ranked[n:][::-1][:n]
