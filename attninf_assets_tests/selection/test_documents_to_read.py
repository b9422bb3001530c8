"""The documents chosen to be read are those of a plain sort."""

from math import isfinite

import duckdb
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.selection.documents_to_read import around, middle
from attninf_assets.store.schemas import TABLES
from benchmarks.rigs.tables_of_scores import scores_of

_scores = st.lists(st.sampled_from([-0.5, 0.0, 0.1, 0.25, None, float("nan")]), min_size=1, max_size=30)


@settings(deadline=None, max_examples=40)
@given(scores=_scores, n=st.integers(1, 6), data=st.data())
def test_top_cut_and_bottom_are_those_of_a_plain_sort(scores: list[float | None], n: int, data: st.DataObject) -> None:
    table = scores_of("web", "a", len(scores))
    column = pa.array(scores, pa.float64())
    table = table.set_column(table.column_names.index("score"), TABLES["scores"].field("score"), column)
    finite = [(s, i) for s, i in zip(scores, table["doc_id"].to_pylist(), strict=True) if s is not None and isfinite(s)]
    ranked = sorted(finite, reverse=True)
    others = [scores_of("code", "a", 3), scores_of("web", "b", 3, mark="another")]
    with duckdb.connect() as connection:
        connection.register("scores", pa.concat_tables([table, *others]))
        in_the_middle = middle(connection, "web", selector_fingerprint="f")
        if not ranked:
            assert in_the_middle is None
            return
        assert in_the_middle in ranked
        n_above = data.draw(st.integers(1, len(ranked)))
        found = around(connection, "web", ranked[n_above - 1], selector_fingerprint="f", n=n)
    half = -(-n // 2)
    places = {place for place in range(len(ranked)) if place < n or place >= len(ranked) - n}
    places |= set(range(max(0, n_above - half), min(len(ranked), n_above + n // 2)))
    assert [(one.score, one.doc_id) for one in found] == [ranked[place] for place in sorted(places)]
    assert [one.rank for one in found] == [place + 1 for place in sorted(places)]
    for one in found:
        if one.rank <= n:
            assert one.place == "top"
        elif one.place != "bottom":
            assert one.place == ("above the cut" if one.rank <= n_above else "below the cut")
