"""A write that another overtakes; of processes that write at once, `torture/races.py` makes as many as wanted."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pytest

from attninf_assets.store.open_tables import Handle
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from attninf_assets_tests.torture.writes import Rows, Write, rows_of
from benchmarks.rigs.tables_of_scores import run_of, scores_of


@dataclass(frozen=True)
class _Race:
    name: str
    table: str
    before: pa.Table | None  # None: the table is absent
    writes: tuple[Write, Write]

    def states(self) -> Iterator[Rows]:
        """What the table may hold at any moment; the last two are what it may hold in the end."""
        one, other = self.writes
        before = [] if self.before is None else rows_of(self.before)
        yield from ([], before, one.after(before), other.after(before))
        yield other.after(one.after(before))
        yield one.after(other.after(before))


def _whole(mark: str, *shards: str) -> Write:
    return Write("scores", pa.concat_tables([scores_of("web", shard, 3, mark=mark) for shard in shards]))


def _partition(mark: str, shard: str) -> Write:
    return Write("scores", scores_of("web", shard, 2, mark=mark), {"domain": "web", "shard": shard})


def _runs(version: int) -> Write:
    return Write("scoring_runs", pa.concat_tables([run_of("web", "a", version)] * 3))


_OLD = scores_of("web", "old", 4, mark="old")
_TWO_WHOLE = (_whole("f", "a", "b"), _whole("g", "b"))
RACES = [
    _Race("two whole tables, absent", "scores", None, _TWO_WHOLE),
    _Race("two whole tables, empty", "scores", _OLD.slice(0, 0), _TWO_WHOLE),
    _Race("two whole tables, full", "scores", _OLD, _TWO_WHOLE),
    _Race("two whole tables without partitions, absent", "scoring_runs", None, (_runs(1), _runs(2))),
    _Race(
        "two whole tables without partitions, empty", "scoring_runs", run_of("web", "a", 0)[:0], (_runs(1), _runs(2))
    ),
    _Race("the whole and a new partition, absent", "scores", None, (_whole("f", "a"), _partition("g", "b"))),
    _Race("the whole and a new partition, full", "scores", _OLD, (_whole("f", "a"), _partition("g", "b"))),
    _Race("the whole and a partition of it", "scores", _OLD, (_whole("f", "a", "b"), _partition("g", "b"))),
    _Race("the whole and an old partition", "scores", _OLD, (_whole("f", "a"), _partition("g", "old"))),
    _Race("nothing at all and a partition", "scores", _OLD, (Write("scores", _OLD[:0]), _partition("g", "b"))),
]


def _lake(root: Root, number: int) -> Lake:
    return Lake(Root.at(f"{root.uri}/{number}", root.storage_options))


def _begin(lake: Lake, race: _Race) -> None:
    if race.before is not None:
        lake.replace(race.table, race.before)


def _check(lake: Lake, race: _Race) -> None:
    states = list(race.states())
    newest = lake.version(race.table)
    assert newest is not None
    assert rows_of(lake.read(race.table)) in states[-2:], race.name
    for version in range(newest + 1):
        assert rows_of(lake.read(race.table, version=version)) in states, (race.name, version)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("race", RACES, ids=lambda race: race.name)
def test_a_write_that_another_overtakes_is_written_over_its_result(
    root: Root, race: _Race, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, overtaken = _lake(root, 0), _lake(root, 0)
    _begin(lake, race)
    take_now = overtaken._taken
    turns = iter([race.writes[first]])

    def take_then_lose(name: str) -> Handle | None:
        handle = take_now(name)
        for write in turns:
            lake.replace(race.table, write.data, where=write.where)
        return handle

    monkeypatch.setattr(overtaken, "_taken", take_then_lose)
    write = race.writes[1 - first]
    overtaken.replace(race.table, write.data, where=write.where)
    _check(lake, race)
