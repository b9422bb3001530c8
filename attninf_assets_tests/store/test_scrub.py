"""Damage to the files of tables is found and named, however it came about, and nothing sound is called damaged."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from attninf_assets.store.checksums import record_of
from attninf_assets.store.damage import DamagedTableError
from attninf_assets.store.log_scrub import TableLog
from attninf_assets.store.maintenance import maintain
from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.scrub import scrub
from attninf_assets.store.setting_aside import set_aside
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import run_of, scores_of

_WEB_A = {"domain": "web", "shard": "a"}
_WEB_B = {"domain": "web", "shard": "b"}


@pytest.fixture
def lake(root: Root) -> Lake:
    lake = Lake(root)
    for where in (_WEB_A, _WEB_B):
        lake.replace("scores", scores_of(where["domain"], where["shard"], 300), where=where)
    for number in range(3):
        lake.append("scoring_runs", run_of("web", f"s{number}", number), writer=f"s{number}", number=number)
    return lake


def file_of(lake: Lake, name: str, **where: str) -> str:
    """A file of the table, as a path below the root."""
    return lake.files(name, where=where)[0].removeprefix(f"{lake.root.uri}/")


def overwrite(root: Root, path: str, data: bytes) -> None:
    filesystem, found = root.locate(path)
    with filesystem.open_output_stream(found) as stream:
        stream.write(data)


def emptied(root: Root, path: str) -> None:
    overwrite(root, path, b"")


def cut(root: Root, path: str) -> None:
    overwrite(root, path, root.read_bytes(path)[:-100])


def deleted(root: Root, path: str) -> None:
    root.delete(path)


def zeroed(root: Root, path: str) -> None:
    overwrite(root, path, bytes(len(root.read_bytes(path))))


_DAMAGES = [(emptied, "0 bytes, the log says"), (cut, "bytes, the log says"), (deleted, "the file is missing")]


def test_a_sound_lake_has_no_damage_however_often_it_is_looked_at(lake: Lake) -> None:
    assert scrub(lake) == []
    maintain(lake, selector_fingerprint=None)
    assert scrub(lake, only_new=True) == []
    lake.replace("scores", scores_of("web", "a", 5), where=_WEB_A)
    assert scrub(lake) == []


@pytest.mark.parametrize(("damage", "what"), [*_DAMAGES, (zeroed, "cannot be decoded|sha256 differs")])
def test_a_file_that_cannot_be_read_is_named_with_its_partition(
    lake: Lake, damage: Callable[[Root, str], None], what: str
) -> None:
    path = file_of(lake, "scores", **_WEB_A)
    damage(lake.root, path)
    (found,) = scrub(lake)
    assert (found.table, found.partition) == ("scores", _WEB_A)
    assert f"tables/scores/{found.file}" == path
    assert re.search(what, found.what)
    assert scrub(lake) == [found]


def scores_with_losses_at_random(n: int) -> pa.Table:
    rows = scores_of("web", "a", n)
    losses = pa.array(np.random.default_rng(0).random(n))
    return rows.set_column(rows.schema.get_field_index("loss_base"), rows.schema.field("loss_base"), losses)


def test_a_flipped_bit_that_decodes_to_other_values_is_found_from_the_commit_on(tmp_path: Path) -> None:
    lake, rows = Lake(Root.at(tmp_path)), scores_with_losses_at_random(300)
    lake.replace("scores", rows, where=_WEB_A)
    path = file_of(lake, "scores")
    sound = lake.root.read_bytes(path)
    dice, unnoticed = random.Random(0), 0
    for _ in range(30):
        overwrite(lake.root, path, flipped(sound, dice))
        try:
            unnoticed += not lake.read("scores").equals(rows)
        except DamagedTableError:
            continue
        (found,) = scrub(lake)
        assert f"tables/scores/{found.file}" == path
    assert unnoticed, "a reader notices every flip by itself: the record of checksums is not needed"
    overwrite(lake.root, path, sound)
    assert scrub(lake) == []


def test_what_a_commit_recorded_outlives_the_commit_in_the_log(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    for n in (300, 301):
        lake.replace("scores", scores_with_losses_at_random(n), where=_WEB_A)
    assert scrub(lake) == []
    DeltaTable(lake.root.table_uri("scores")).create_checkpoint()
    for commit in (0, 1):  # as the log lets go of what a checkpoint stands for
        lake.root.delete(f"tables/scores/_delta_log/{commit:020}.json")
    assert scrub(lake) == []
    copies = {path.name for path in tmp_path.glob("checksums/scores/*/*")}
    last = "00000000000000000002"
    assert copies == {f"{last}.json", f"{last}.checkpoint.parquet", f"_last_checkpoint.{last}"}
    path = file_of(lake, "scores")
    overwrite(lake.root, path, flipped(lake.root.read_bytes(path), random.Random(3)))
    assert [damage.path for damage in scrub(lake)] == [path]


def test_a_file_that_only_earlier_versions_have_is_looked_at_until_it_is_vacuumed(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    lake.replace("scores", scores_with_losses_at_random(300), where=_WEB_A)
    before = file_of(lake, "scores")
    lake.replace("scores", scores_with_losses_at_random(5), where=_WEB_A)
    overwrite(lake.root, before, flipped(lake.root.read_bytes(before), random.Random(0)))
    (found,) = scrub(lake)
    assert (found.path, found.of_earlier_versions) == (before, True)
    lake.root.delete(before)
    assert scrub(lake) == []


def flipped(data: bytes, dice: random.Random) -> bytes:
    at, bit = dice.randrange(len(data)), dice.randrange(8)
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def put_log_back(lake: Lake, name: str) -> None:
    log = TableLog.read(lake.root, name)
    for damage in log.damages():
        log.put_back(damage)


@pytest.mark.parametrize("damage", [emptied, cut, deleted, zeroed, "flipped"])
@pytest.mark.parametrize(
    "file",
    [
        "00000000000000000001.json",
        "00000000000000000002.json",
        "_last_checkpoint",
        "00000000000000000002.checkpoint.parquet",
        "00000000000000000003.json",
    ],
)
def test_whatever_becomes_of_a_file_of_the_log_is_named_and_put_back(
    tmp_path: Path, damage: Callable[[Root, str], None] | str, file: str
) -> None:
    lake = Lake(Root.at(tmp_path))
    for n in (5, 6):
        lake.replace("scores", scores_of("web", "a", n), where=_WEB_A)
    DeltaTable(lake.root.table_uri("scores")).create_checkpoint()
    lake.replace("scores", scores_of("web", "a", 7), where=_WEB_A)
    rows = lake.read("scores")
    assert scrub(lake) == []
    path = f"tables/scores/_delta_log/{file}"
    sound = lake.root.read_bytes(path)
    if callable(damage):
        damage(lake.root, path)
    else:
        overwrite(lake.root, path, flipped(sound, random.Random(0)))
    assert [found.path for found in scrub(lake)] == [path]
    put_log_back(lake, "scores")
    assert lake.root.read_bytes(path) == sound
    assert scrub(lake) == []
    assert lake.read("scores").equals(rows)


def test_a_commit_that_was_never_copied_is_named_where_it_cannot_be_parsed(lake: Lake) -> None:
    for path in lake.root.list("checksums"):
        lake.root.delete(path)
    path = "tables/scores/_delta_log/00000000000000000002.json"
    overwrite(lake.root, path, b"")
    (found,) = (damage for damage in scrub(lake) if damage.path == path)
    assert found.what == "the commit is empty"
    log = TableLog.read(lake.root, "scores")
    assert not log.can_put_back(found)
    with pytest.raises(ValueError, match="no copy of it was kept"):
        log.put_back(found)


def test_a_damaged_copy_is_named_and_not_taken_for_a_damaged_log(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    lake.replace("scores", scores_of("web", "a", 5), where=_WEB_A)
    path = lake.root.list("checksums/scores")[-1]
    overwrite(lake.root, path, flipped(lake.root.read_bytes(path), random.Random(1)))
    assert [damage.path for damage in scrub(lake)] == [path]


def test_a_table_that_was_made_anew_is_not_put_back_to_what_it_was(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    for n in (5, 6, 7):
        lake.replace("scores", scores_of("web", "a", n), where=_WEB_A)
    assert scrub(lake) == []
    shutil.rmtree(tmp_path / "tables/scores")
    lake.replace("scores", scores_of("web", "a", 4), where=_WEB_A)
    assert len(list(tmp_path.glob("checksums/scores/*"))) == 2
    assert scrub(lake) == []
    assert len(list(tmp_path.glob("checksums/scores/*"))) == 1
    assert len(lake.read("scores")) == 4


def test_a_table_that_was_moved_away_and_made_anew_is_no_damaged_one(lake: Lake) -> None:
    assert scrub(lake) == []
    lake.root.delete("tables/scores")
    assert scrub(lake) == []
    lake.replace("scores", scores_of("web", "a", 200), where=_WEB_A)
    assert scrub(lake) == []
    overwrite(lake.root, file_of(lake, "scores"), b"PAR1")
    assert [damage.path for damage in scrub(lake)] == [file_of(lake, "scores")]


def test_a_damaged_record_of_checksums_is_not_taken_for_damaged_files(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    lake.replace("scores", scores_of("web", "a", 5), where=_WEB_A)
    assert scrub(lake) == []
    record = lake.root.read_bytes(record_of("scores"))
    overwrite(lake.root, record_of("scores"), flipped(record, random.Random(1)))
    assert [damage.path for damage in scrub(lake)] == [record_of("scores")]


@pytest.mark.parametrize(("damage", "what"), _DAMAGES)
def test_readers_name_the_table_the_file_and_the_command(
    lake: Lake, damage: Callable[[Root, str], None], what: str
) -> None:
    path = file_of(lake, "scores", **_WEB_A)
    file = path.removeprefix("tables/scores/")
    damage(lake.root, path)

    def query() -> None:
        with connect(lake, "scores") as connection:
            connection.execute("SELECT max(score) FROM scores").fetchall()

    readers: dict[str, Callable[[], object]] = {
        "read": lambda: lake.read("scores"),
        "the newest by its number": lambda: lake.read("scores", version=lake.version("scores")),
        "batches": lambda: list(lake.batches("scores", columns=["doc_id"], where={})),
        "replace_if_changed": lambda: lake.replace_if_changed("scores", scores_of("web", "a", 1), where=_WEB_A),
        "query": query,
    }
    for reader in readers.values():
        with pytest.raises(DamagedTableError, match=rf"tables/scores: .*{file}.*{what}.*attninf repair") as error:
            reader()
        assert "vacuumed" not in str(error.value)
    assert len(lake.read("scores", where=_WEB_B)) == 300


def test_a_failure_that_is_no_damage_stands_as_it_is(lake: Lake) -> None:
    import duckdb

    with pytest.raises(duckdb.InvalidInputException, match="of my own"), connect(lake, "scores") as connection:
        connection.execute("SELECT error('of my own')")


@pytest.mark.parametrize("damage", [emptied, cut, deleted, zeroed])
def test_what_is_set_aside_is_out_of_the_table_and_kept(lake: Lake, damage: Callable[[Root, str], None]) -> None:
    path = file_of(lake, "scores", **_WEB_A)
    damage(lake.root, path)
    left = lake.root.read_bytes(path) if lake.root.exists(path) else None
    others = [file for file in lake.files("scores") if not file.endswith(path)]
    set_aside(lake, "scores", scrub(lake))
    assert lake.files("scores") == others
    assert len(lake.read("scores")) == 300
    assert scrub(lake) == []
    if left is not None:
        assert lake.root.read_bytes(f"damaged/{path}") == left
    lake.replace("scores", scores_of("web", "a", 7), where=_WEB_A)
    assert len(lake.read("scores")) == 307


def test_only_what_was_found_is_taken_out(lake: Lake) -> None:
    damaged, missing = (file_of(lake, "scores", **where) for where in (_WEB_A, _WEB_B))
    cut(lake.root, damaged)
    damages = scrub(lake)
    lake.root.delete(missing)
    version = lake.version("scores")
    with pytest.raises(RuntimeError, match="are missing as well"):
        set_aside(lake, "scores", damages)
    assert lake.version("scores") == version
    set_aside(lake, "scores", scrub(lake))
    assert lake.files("scores") == []


def test_maintenance_leaves_a_damaged_table_as_it_is(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    for number in range(3):
        lake.append("scoring_runs", run_of("web", f"s{number}", number), writer=f"s{number}", number=number)
    version = lake.version("scoring_runs")
    cared, _ = maintain(lake, selector_fingerprint=None, spare={"scoring_runs"})
    assert cared == []
    assert (lake.version("scoring_runs"), len(lake.files("scoring_runs"))) == (version, 3)
