"""What the last thresholds keep of a shard, against the selection itself."""

import duckdb
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.selection.definitions import Keep, SelectionDefinition
from attninf_assets.selection.last_cut import Cut, last_cut
from attninf_assets.selection.thresholds import find_thresholds, selected
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import scores_of

_SCORES = st.lists(st.none() | st.sampled_from([0.1, 0.2, 0.2, 0.5, float("inf")]), min_size=1, max_size=8)


def shard(name: str, scores: list[float | None]) -> pa.Table:
    rows = scores_of("web", name, len(scores)).to_pylist()
    scored = [row | {"score": score} for row, score in zip(rows, scores, strict=True)]
    return pa.Table.from_pylist(scored, schema=TABLES["scores"])


def thresholds(scores: pa.Table, fraction: float) -> pa.Table:
    with duckdb.connect() as connection:
        connection.register("scores", scores)
        if not connection.sql("SELECT 1 FROM scores WHERE isfinite(score)").fetchall():
            return TABLES["thresholds"].empty_table()
        definition = SelectionDefinition(keep=Keep(fraction=fraction))
        return find_thresholds(connection, selector_fingerprint="f", definition=definition)


@given(a=_SCORES, b=_SCORES, fraction=st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_the_share_is_that_of_the_documents_selected(
    a: list[float | None], b: list[float | None], fraction: float
) -> None:
    shards = {"a": shard("a", a), "b": shard("b", b)}
    scores = pa.concat_tables(shards.values())
    found = thresholds(scores, fraction)
    for row in found.to_pylist():
        cut = Cut(row["threshold_score"], row["threshold_doc_id"])
        with duckdb.connect() as connection:
            connection.register("scores", scores)
            connection.register("thresholds", found)
            kept = selected(connection, selector_fingerprint="f").read_all()["shard"].to_pylist()
        for name, rows in shards.items():
            assert cut.share_of(rows) == kept.count(name) / len(rows)


def test_the_last_cut_is_the_domains_and_of_scores_by_the_selector_in_use(root: Root) -> None:
    lake = Lake(root)
    assert last_cut(lake, "web", "f") is None
    scores = shard("a", [0.1, 0.2, 0.5, None])
    lake.replace("thresholds", thresholds(scores, 0.5))
    assert last_cut(lake, "web", "f") == Cut(0.2, scores["doc_id"][1].as_py())
    assert last_cut(lake, "web", "another") is None
    assert last_cut(lake, "code", "f") is None


def test_a_document_with_the_very_score_is_kept_by_its_id() -> None:
    alike = shard("a", [0.5, 0.5])
    first, second = alike["doc_id"].to_pylist()
    assert first < second
    assert [Cut(0.5, doc_id).share_of(alike) for doc_id in (first, second)] == [1.0, 0.5]
