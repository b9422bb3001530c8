from pathlib import Path

from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets_tests.torture.attempts import Attempt, told
from attninf_assets_tests.torture.races import Arena, Race
from attninf_assets_tests.torture.writes import Write, made_rows, rows_of

SEED = 1
# every table, and every state before
LOCAL = [Attempt(SEED, number * 9 % (3 * len(TABLES))) for number in range(len(TABLES))]
ON_S3 = [Attempt(SEED, 3), Attempt(SEED, 12)]


def test_every_commit_of_a_race_leaves_what_its_writer_was_to_leave(root: Root) -> None:
    arena = Arena(root)
    try:
        assert told("races", map(arena.run, LOCAL if root.is_local else ON_S3)) == 0
    finally:
        arena.close()
    assert arena.replayed > 2 * len(LOCAL if root.is_local else ON_S3)


def test_the_races_are_of_every_table_in_every_state_and_the_same_for_a_seed() -> None:
    races = [Race.of(Attempt(SEED, number)) for number in range(3 * len(TABLES))]
    assert {(race.table, race.before) for race in races} == {
        (table, before) for table in TABLES for before in ("absent", "empty", "full")
    }
    assert races == [Race.of(Attempt(SEED, number)) for number in range(3 * len(TABLES))]


def test_a_commit_that_lost_a_row_is_found(tmp_path: Path, monkeypatch: object) -> None:
    whole = made_rows("scores", "m", {"domain": "web", "shard": "a"}, n=3)
    write = Write("scores", whole, {"domain": "web", "shard": "a"})
    other = rows_of(made_rows("scores", "o", {"domain": "web", "shard": "b"}))
    assert write.after(other + rows_of(whole.slice(1))) == sorted(other + rows_of(whole))
    assert Write("scores", whole).after(other) == rows_of(whole)
    assert Write("scores", whole, beside=True).after(rows_of(whole)) == sorted(2 * rows_of(whole))
