"""Lake: replacing and reading partitions of Delta tables."""

import multiprocessing as mp
import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attninf_assets.store.open_tables import Handle
from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import PARTITIONED_BY, TABLES, came_later
from attninf_assets.store.scrub import scrub
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.processes import FORKED
from attninf_assets_tests.torture.writes import made_rows
from benchmarks.rigs.tables_of_scores import run_of, scores_of


def _by_id(table: pa.Table) -> list[dict[str, object]]:
    return sorted(table.to_pylist(), key=lambda row: str(row["doc_id"]))


def _where(domain: str, shard: str) -> dict[str, str]:
    return {"domain": domain, "shard": shard}


def test_an_absent_table_reads_as_no_rows(root: Root) -> None:
    lake = Lake(root)
    for name, schema in TABLES.items():
        assert lake.read(name).schema.equals(schema)
        assert (len(lake.read(name)), lake.files(name), lake.version(name), lake.exists(name)) == (0, [], None, False)


def test_replacing_a_partition_leaves_the_others_alone(root: Root) -> None:
    lake = Lake(root)
    other, old, new = scores_of("web", "b", 3), scores_of("web", "a", 5), scores_of("web", "a", 2, mark="g")
    lake.replace("scores", other, where=_where("web", "b"))
    before = lake.replace("scores", old, where=_where("web", "a"))
    after = lake.replace("scores", new, where=_where("web", "a"))
    assert after == before + 1 == lake.version("scores")
    assert lake.read("scores").schema.equals(TABLES["scores"])
    assert _by_id(lake.read("scores")) == _by_id(pa.concat_tables([other, new]))
    assert _by_id(lake.read("scores", where=_where("web", "a"))) == _by_id(new)
    assert lake.read("scores", columns=["shard", "n_tokens"], where={"domain": "web"}).column_names == [
        "shard",
        "n_tokens",
    ]
    assert len(lake.read("scores", where={"domain": "nowhere"})) == 0


def test_a_partition_can_be_replaced_by_nothing(root: Root) -> None:
    lake = Lake(root)
    lake.replace("scores", scores_of("web", "a", 0), where=_where("web", "a"))
    assert lake.exists("scores")
    lake.replace("scores", scores_of("web", "a", 2), where=_where("web", "a"))
    lake.replace("scores", scores_of("web", "b", 2), where=_where("web", "b"))
    lake.replace("scores", scores_of("web", "a", 0), where=_where("web", "a"))
    assert lake.read("scores")["shard"].unique().to_pylist() == ["b"]


def test_an_empty_where_replaces_the_whole_table_from_a_stream(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    lake.replace("scores", scores_of("web", "a", 2), where=_where("web", "a"))
    new = pa.concat_tables([scores_of("code", "x", 3), scores_of("code", "y", 3)])
    lake.replace("scores", new.to_reader(max_chunksize=2))
    assert _by_id(lake.read("scores")) == _by_id(new)


def test_every_table_takes_rows_of_its_schema(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    for name, schema in TABLES.items():
        values = {pa.string(): "x", pa.int64(): 1, pa.float64(): 0.5, pa.bool_(): True, pa.list_(pa.int64()): [1, 2]}
        values[pa.list_(pa.float64())] = [0.5, None]
        values[pa.timestamp("us", tz="UTC")] = scores_of("x", "x", 1)["scored_at"][0].as_py()
        row = {field.name: values[field.type] for field in schema}
        rows = pa.Table.from_pylist([row], schema=schema)
        lake.replace(name, rows, where=dict.fromkeys(PARTITIONED_BY[name], "x"))
        assert lake.read(name).equals(rows)


def test_only_the_files_of_the_wanted_partition_are_read(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    for shard in "abc":
        lake.replace("scores", scores_of("web", shard, 2), where=_where("web", shard))
    files = lake.files("scores", where=_where("web", "b"))
    assert [Path(file).parent.name for file in files] == ["shard=b"]
    for file in set(lake.files("scores")) - set(files):
        Path(file).write_bytes(b"ruined")
    assert len(lake.read("scores", where=_where("web", "b"))) == 2


_VALUES = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.tuples(_VALUES, _VALUES), min_size=1, max_size=3, unique=True))
def test_any_partition_value_is_safe(tmp_path_factory: pytest.TempPathFactory, values: list[tuple[str, str]]) -> None:
    lake = Lake(Root.at(tmp_path_factory.mktemp("any") / "it's a = b"))
    for n in (3, 2):  # the second round replaces the first
        for domain, shard in values:
            lake.replace("scores", scores_of(domain, shard, n), where=_where(domain, shard))
    for domain, shard in values:
        assert _by_id(lake.read("scores", where=_where(domain, shard))) == _by_id(scores_of(domain, shard, 2))
    assert all(Path(file).exists() for file in lake.files("scores"))
    assert len(lake.read("scores")) == 2 * len(values)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (scores_of("code", "a", 1), "column domain: a row of 'code' among those to replace 'web'"),
        (scores_of("web", "a", 1).drop_columns(["score"]), r"missing columns \['score'\]"),
        (scores_of("web", "a", 1).append_column("extra", [[1]]), r"unknown or repeated columns \['extra'\]"),
        (scores_of("web", "a", 1).set_column(4, "n_tokens", [[1.5]]), "column n_tokens: .*1.5"),
        (scores_of("web", "a", 2).set_column(4, "n_tokens", [[1, None]]), "column n_tokens: 1 null"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_rows_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, rows: pa.Table, complaint: str, streamed: bool
) -> None:
    lake = Lake(Root.at(tmp_path))
    with pytest.raises(ValueError, match=f"table scores.*{complaint}"):
        lake.replace("scores", rows.to_reader() if streamed else rows, where=_where("web", "a"))
    assert not lake.exists("scores")


def test_questions_about_other_tables_columns_and_partitions_are_refused(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    with pytest.raises(ValueError, match="table 'score'"):
        lake.read("score")
    with pytest.raises(ValueError, match="'n_tokens' is not one of its partitions"):
        lake.read("scores", where={"n_tokens": "1"})
    with pytest.raises(ValueError, match="no column 'loss'"):
        lake.read("scores", columns=["loss"])
    with pytest.raises(ValueError, match="partition domain is empty"):
        lake.files("scores", where={"domain": ""})
    with pytest.raises(ValueError, match="column domain: a partition value is empty"):
        lake.replace("scores", scores_of("", "a", 1))


def test_a_foreign_table_is_refused_naming_the_differing_columns(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    schema = TABLES["thresholds"]
    changed = schema.remove(schema.get_field_index("budget")).append(pa.field("quota", pa.string()))
    DeltaTable.create(lake.root.table_uri("thresholds"), changed)
    with pytest.raises(
        ValueError, match=r"/thresholds: not our table .*\['budget', 'quota'\]: absent, expected string"
    ):
        lake.read("thresholds")
    DeltaTable.create(lake.root.table_uri("scores"), TABLES["scores"], partition_by=["domain"])
    with pytest.raises(ValueError, match=r"tables/scores: partitioned by \['domain'\]"):
        lake.replace("scores", scores_of("web", "a", 1))


def test_an_older_table_is_read_with_nulls_and_gets_its_later_columns_with_the_next_commit(root: Root) -> None:
    lake, schema = Lake(root), TABLES["quarantine"]
    older = pa.schema([field for field in schema if not came_later(field)])
    older = older.set(older.get_field_index("source_row"), pa.field("source_row", pa.int64(), nullable=False))
    uri, options = root.table_uri("quarantine"), dict(root.storage_options)
    table = DeltaTable.create(uri, older, partition_by=["domain", "shard"], storage_options=options)
    row = {"domain": "web", "source_uri": "x", "source_row": 7, "reason": "old"}
    write_deltalake(table, pa.Table.from_pylist([{**row, "shard": name} for name in "ab"], schema=older), mode="append")
    assert lake.read("quarantine")["doc_id"].to_pylist() == [None, None]
    new = pa.Table.from_pylist([{**row, "shard": "a", "source_row": None, "doc_id": "i"}], schema=schema)
    lake.replace("quarantine", new, where={"domain": "web", "shard": "a"})
    rows = {row["shard"]: row for row in lake.read("quarantine").to_pylist()}
    assert (rows["a"]["source_row"], rows["a"]["doc_id"]) == (None, "i")
    assert (rows["b"]["source_row"], rows["b"]["doc_id"]) == (7, None)
    with connect(lake, "quarantine") as connection:
        found = connection.execute("SELECT shard, source_row FROM quarantine ORDER BY shard").fetchall()
    assert found == [("a", None), ("b", 7)]


@pytest.mark.parametrize("name", ["thresholds", "selected_subset"])
def test_a_table_of_before_selections_had_names_reads_as_empty_and_is_laid_out_anew_with_the_next_commit(
    root: Root, name: str
) -> None:
    lake, schema = Lake(root), TABLES[name]
    since = {"selection", "n_eligible", "tokens_eligible", "wanted", "threshold_key", "definition", "definition_digest"}
    since |= {"rule", "order_key", "copies"}
    older = pa.schema([field for field in schema if field.name not in since])
    columns = ["domain"] if name == "selected_subset" else []
    options = dict(root.storage_options)
    table = DeltaTable.create(root.table_uri(name), older, partition_by=columns, storage_options=options)
    row = made_rows(name, "old", {}).select(older.names).to_pylist()[0]
    write_deltalake(table, pa.Table.from_pylist([row], schema=older), mode="append")
    assert lake.exists(name)
    assert (len(lake.read(name)), lake.partitions(name), lake.count(name)) == (0, [], 0)
    with connect(lake, name) as connection:
        assert connection.execute(f"SELECT selection FROM {name}").fetchall() == []
    assert scrub(lake) == []
    new = made_rows(name, "new", {"selection": "lean", "domain": "web"})
    version = lake.replace(name, new, where={"selection": "lean"})
    lake.replace(name, made_rows(name, "more", {"selection": "paper", "domain": "web"}), where={"selection": "paper"})
    assert lake.read(name, where={"selection": "lean"}).to_pylist() == new.to_pylist()
    assert {one["selection"] for one in lake.partitions(name)} == {"lean", "paper"}
    assert len(lake.read(name, version=version - 1)) == 0
    assert scrub(lake) == []


def test_rows_are_taken_out_unless_another_writer_put_others_there(root: Root) -> None:
    lake, where = Lake(root), {"domain": "web", "shard": "a"}
    lake.replace("scores", scores_of("web", "a", 3), where=where)
    lake.replace("scores", scores_of("web", "b", 2), where={"domain": "web", "shard": "b"})
    seen = lake.files("scores", where=where)
    lake.replace("scores", scores_of("web", "a", 4), where=where)
    assert not lake.take_out("scores", where=where, holding=seen)
    assert lake.count("scores") == 6
    assert lake.take_out("scores", where=where, holding=lake.files("scores", where=where))
    assert lake.partitions("scores") == [{"domain": "web", "shard": "b"}]
    assert not lake.take_out("scores", where=where, holding=[])


def test_a_table_of_an_older_version_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    for name, schema in TABLES.items():
        last = max(n for n, field in enumerate(schema) if not came_later(field))
        DeltaTable.create(lake.root.table_uri(name), schema.remove(last))
        with pytest.raises(ValueError, match=rf"tables/{name}: .*absent, expected .*move it away and run: dg launch"):
            lake.read(name)


def test_a_writer_that_repeats_itself_adds_its_rows_once(root: Root) -> None:
    lake = Lake(root)
    assert lake.append("scoring_runs", run_of("web", "a", 1), writer="web.a", number=1) is not None
    assert lake.append("scoring_runs", run_of("web", "a", 1), writer="web.a", number=1) is None
    assert lake.append("scoring_runs", run_of("web", "b", 1), writer="web.b", number=1) is not None
    assert lake.append("scoring_runs", run_of("web", "a", 2), writer="web.a", number=2) is not None
    rows = lake.read("scoring_runs", columns=["shard", "scores_version"]).to_pylist()
    assert sorted((row["shard"], row["scores_version"]) for row in rows) == [("a", 1), ("a", 2), ("b", 1)]


def test_a_version_that_never_was_is_refused(root: Root) -> None:
    lake = Lake(root)
    lake.replace("scores", scores_of("web", "a", 1))
    with pytest.raises(ValueError, match=r"tables/scores: .*version 99"):
        lake.read("scores", version=99)


def test_counting_and_reading_in_pieces_agree_with_reading(root: Root) -> None:
    lake = Lake(root)
    assert lake.count("scores", where=_where("web", "a")) == 0
    lake.replace("scores", pa.concat_tables([scores_of("web", "a", 5), scores_of("web", "b", 2)]))
    assert (lake.count("scores"), lake.count("scores", where=_where("web", "a"))) == (7, 5)
    pieces = lake.batches("scores", columns=["doc_id"], where=_where("web", "a"))
    assert (
        pa.Table.from_batches(pieces).to_pylist()
        == lake.read("scores", columns=["doc_id"], where=_where("web", "a")).to_pylist()
    )
    only = lake.read("scores", columns=["doc_id"], only=pc.field("n_tokens") == 2)
    assert sorted(only["doc_id"].to_pylist()) == ["web-a-1", "web-b-1"]


def test_a_table_with_deletion_vectors_is_refused(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    uri = lake.root.table_uri("thresholds")
    DeltaTable.create(uri, TABLES["thresholds"], configuration={"delta.enableDeletionVectors": "true"})
    with pytest.raises(ValueError, match=r"tables/thresholds: the table uses deletionVectors"):
        lake.files("thresholds")


def _replace_own_partition(root: Root, shard: str, times: int, together: "mp.synchronize.Barrier") -> None:
    together.wait()
    for i in range(times):
        Lake(root).replace("scores", scores_of("web", shard, 20, mark=str(i)), where=_where("web", shard))


def _run(root: Root, shards: list[str], times: int) -> None:
    together = FORKED.Barrier(len(shards))
    writers = [FORKED.Process(target=_replace_own_partition, args=(root, shard, times, together)) for shard in shards]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * len(shards)


def test_processes_that_create_one_table_at_once_and_replace_their_partitions_all_succeed(root: Root) -> None:
    _run(root, list("abcd"), 5)
    lake = Lake(root)
    rows = lake.read("scores")
    assert len(rows) == 80
    assert set(rows["selector_fingerprint"].to_pylist()) == {"4"}
    assert lake.version("scores") == 20  # the creation, and a commit for each replacement


def test_processes_that_replace_the_same_partition_leave_one_whole_result(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    _run(root, ["a", "a", "a"], 4)
    assert _by_id(Lake(root).read("scores")) == _by_id(scores_of("web", "a", 20, mark="3"))
    assert Lake(root).version("scores") == 12


def _replace_forever(root: Root, ready: "mp.synchronize.Event") -> None:
    for i in range(1_000_000):
        Lake(root).replace("scores", scores_of("web", "a", 2_000, mark=str(i)), where=_where("web", "a"))
        if i:
            ready.set()


def test_a_process_killed_while_replacing_leaves_one_whole_result(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    lake = Lake(root)
    for delay in (0.0, 0.013, 0.031):
        ready = FORKED.Event()
        writer = FORKED.Process(target=_replace_forever, args=(root, ready))
        writer.start()
        assert ready.wait(60)
        time.sleep(delay)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        rows = lake.read("scores")
        assert len(rows) == 2_000
        assert len(rows["selector_fingerprint"].unique()) == 1
        assert sum(pq.read_metadata(file).num_rows for file in lake.files("scores")) == 2_000
    lake.replace("scores", scores_of("web", "a", 1), where=_where("web", "a"))
    assert len(lake.read("scores")) == 1


def test_losing_to_other_writers_for_ever_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(Root.at(tmp_path))
    lake.replace("scores", scores_of("web", "a", 1))
    take_now = lake._taken

    def take_then_lose(name: str) -> Handle | None:
        handle = take_now(name)
        Lake(lake.root).replace("scores", scores_of("web", "a", 1))  # another writer commits first
        return handle

    monkeypatch.setattr(lake, "_taken", take_then_lose)
    monkeypatch.setattr("attninf_assets.store.tables._ATTEMPTS", 3)
    with pytest.raises(RuntimeError, match=r"tables/scores: waited .* lost all 3 attempts"):
        lake.replace("scores", scores_of("web", "a", 2), where=_where("web", "a"))
    assert len(Lake(lake.root).read("scores")) == 1


def test_wrong_credentials_are_an_error_that_does_not_tell_the_secret(s3_root: Root) -> None:
    intruder = Root.at(s3_root.uri, {**s3_root.storage_options, "AWS_SECRET_ACCESS_KEY": "a-guessed-secret"})
    lake = Lake(intruder)
    attempts = [
        lambda: lake.exists("scores"),
        lambda: lake.replace("scores", scores_of("web", "a", 1)),
        lambda: intruder.read_bytes("x"),
        lambda: intruder.write_bytes("x", b"x"),
        lambda: intruder.list("x"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError, match=r"privileges|ACCESS_DENIED|SIGNATURE|AccessDenied") as refusal:
            attempt()
        assert "a-guessed-secret" not in f"{refusal.value!r} {refusal.value.__cause__!r}"
