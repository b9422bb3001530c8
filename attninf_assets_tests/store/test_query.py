"""connect: DuckDB over the tables of a lake."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.store.query import connect, rows_digest
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES, came_later
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import scores_of


def test_absent_and_emptied_tables_are_empty_views_with_the_columns_of_the_schema(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    lake.replace("scores", scores_of("web", "a", 1))
    lake.replace("scores", scores_of("web", "a", 0))
    with connect(lake, *TABLES) as connection:
        for name, schema in TABLES.items():
            shown = pa.schema([field for field in schema if not came_later(field)])  # older tables lack the others
            assert connection.sql(f"SELECT * FROM {name}").to_arrow_table().cast(shown) == shown.empty_table()


def test_a_view_gives_the_rows_and_types_that_were_stored(root: Root) -> None:
    lake = Lake(root)
    parts = [scores_of("web", "1", 3), scores_of("web", "2", 2), scores_of("it's=50%", "2026-01-01", 2)]
    for part in parts:
        where = {column: part[column][0].as_py() for column in ("domain", "shard")}
        lake.replace("scores", part, where=where)
    schema = TABLES["retrieval_probes"]
    values = {pa.int64(): 1, pa.string(): "x"}
    probe = pa.Table.from_pylist([{field.name: values.get(field.type, [1, 2]) for field in schema}], schema=schema)
    lake.replace("retrieval_probes", probe)
    with connect(root, "scores", "retrieval_probes", threads=1, memory_limit="500MB") as connection:
        stored = connection.sql("SELECT * FROM scores ORDER BY domain, shard, doc_id").to_arrow_table()
        assert connection.sql("SELECT * FROM retrieval_probes").to_arrow_table().cast(probe.schema) == probe
        assert connection.sql("SELECT count(*) FROM scores WHERE shard = '1'").fetchall() == [(3,)]
    expected = pa.concat_tables(parts).sort_by([(column, "ascending") for column in ("domain", "shard", "doc_id")])
    expected = expected.drop_columns([field.name for field in TABLES["scores"] if came_later(field)])
    assert stored.cast(expected.schema) == expected


def test_views_of_a_partition_hold_it_alone_and_read_no_other_file(root: Root) -> None:
    lake = Lake(root)
    for shard in "ab":
        lake.replace("scores", scores_of("web", shard, 3), where={"domain": "web", "shard": shard})
    for file in lake.files("scores", where={"domain": "web", "shard": "b"}):
        root.write_bytes(file.removeprefix(f"{root.uri}/"), b"ruined")
    with connect(lake, "scores", "documents", where={"domain": "web", "shard": "a"}) as connection:
        assert connection.sql("SELECT DISTINCT shard FROM scores").fetchall() == [("a",)]
        assert connection.sql("SELECT count(*) FROM documents").fetchall() == [(0,)]
    with pytest.raises(ValueError, match="'shard' is not one of its partitions"):
        connect(lake, "selected_subset", where={"shard": "a"}).__enter__()


def test_a_view_keeps_showing_the_version_it_was_opened_on(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path / "it's = here"))
    lake.replace("scores", scores_of("web", "a", 3))
    with connect(lake, "scores") as connection:
        lake.replace("scores", scores_of("web", "a", 5))
        assert connection.sql("SELECT count(*) FROM scores").fetchall() == [(3,)]
    with connect(lake, "scores") as connection:
        assert connection.sql("SELECT count(*) FROM scores").fetchall() == [(5,)]


def test_a_partition_key_that_is_part_of_the_roots_path_does_not_confuse_the_view(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path / "run=7" / "data"))
    lake.replace("scores", scores_of("web", "a", 1))
    with connect(lake, "scores") as connection:
        assert connection.sql("SELECT domain, shard FROM scores").fetchall() == [("web", "a")]


def test_partition_values_stay_text_and_times_show_in_utc(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    lake.replace("scores", scores_of("1e3", "007", 1))
    with connect(lake, "scores") as connection:
        row = connection.sql("SELECT domain, shard, scored_at::VARCHAR FROM scores").fetchall()
    assert row == [("1e3", "007", "2026-01-01 00:00:00+00")]


def test_a_sort_beyond_the_memory_limit_spills_and_leaves_nothing_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with connect(Root.at(tmp_path / "root"), memory_limit="60MB", threads=1) as connection:
        spill = connection.sql("SELECT current_setting('temp_directory')").fetchall()[0][0]
        assert not spill.startswith((".", str(tmp_path)))
        longest = connection.sql(
            "SELECT max(length(word)) FROM (SELECT md5(range::VARCHAR) AS word FROM range(2_000_000) "
            "ORDER BY word LIMIT 1_900_000 OFFSET 10)"
        ).fetchall()
    assert longest == [(32,)]
    assert list(tmp_path.iterdir()) == []


_CELLS = st.tuples(st.sampled_from(["", "a", "b", "ab"]), st.sampled_from(["", "a", "b"]), st.floats(0, 1))


def _digest(rows: list[tuple[str, str, float]]) -> str:
    names = ["one", "two", "score"]
    table = [dict(zip(names, row, strict=True)) for row in rows]
    types = pa.schema([("one", pa.string()), ("two", pa.string()), ("score", pa.float64())])
    with duckdb.connect() as connection:
        connection.register("things", pa.Table.from_pylist(table, schema=types))
        return rows_digest(connection, "things", names)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(_CELLS, unique=True, max_size=5), other=st.lists(_CELLS, unique=True, max_size=5), data=st.data())
def test_digests_are_equal_for_the_same_rows_in_any_order_and_for_no_others(
    rows: list[tuple[str, str, float]], other: list[tuple[str, str, float]], data: st.DataObject
) -> None:
    assert _digest(data.draw(st.permutations(rows))) == _digest(rows)
    assert (_digest(other) == _digest(rows)) == (set(other) == set(rows))


def test_digests_stand_still_between_releases() -> None:
    """They are data versions: another value would make everything downstream look changed."""
    assert _digest([("web", "a", 0.25), ("web", "b", -1.5)]) == "2:4306747124908500561"
    assert _digest([]) == "0:None"
