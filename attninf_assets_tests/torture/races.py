"""Writers that meet: every table, absent, empty and full, beside readers and maintenance, every version replayed.

    python -m attninf_assets_tests.torture.races --count 500 --root local

An attempt is a race over one table. Three processes write to it, each up to four times, all at the same moments: the
whole of it, a partition, a domain, nothing at all, or rows beside the others. A fourth reads all the while, in three
ways, and in two races of three a fifth maintains the lake. Afterwards each version is read and compared with a plain
account of what the writer that made it was to leave of the version before it. What must hold:

- every write ends, and has one version for itself: what that holds is what the write leaves of the version before;
- any other version, a creation or a compaction, holds what the one before it held;
- a reader saw states of the table and nothing else, and never an older one after a newer one;
- once nobody writes, a vacuum of everything that the newest version does not need leaves the newest as it was.
"""

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from attninf_assets.store import maintenance
from attninf_assets.store.commits import Commit
from attninf_assets.store.maintenance import maintain
from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import PARTITIONED_BY, TABLES, came_later
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.processes import FORKED
from attninf_assets_tests.torture.attempts import Attempt, Outcome, attempts, seeds_parser, told
from attninf_assets_tests.torture.workers import StuckError, Worker
from attninf_assets_tests.torture.writes import Rows, Write, made_rows, rows_of, write_to
from benchmarks.rigs.s3 import s3_server

__all__ = ["Arena", "Race", "root_of"]

WRITERS = 3
_ROUNDS = 4  # of writes, at most
_PATIENCE = 120.0  # seconds for a whole race
_BEFORE = ("absent", "empty", "full")
_VALUES = {
    "domain": ("web", "code"),
    "shard": ("a", "b"),
    "selector_fingerprint": ("f", "g"),
    "selection": ("paper", "lean"),
}
_BY_OTHERS = {"CREATE TABLE", "OPTIMIZE", "VACUUM START", "VACUUM END"}  # delta-rs's words for versions of no writer


@dataclass(frozen=True)
class Race:
    """What is written, by whom, over what, and whether the lake is maintained meanwhile."""

    table: str
    before: str  # one of _BEFORE
    writers: tuple[tuple[Write, ...], ...]
    maintained: bool

    @classmethod
    def of(cls, attempt: Attempt) -> "Race":
        """The attempt's: every table in each of its states in turn, the rest drawn."""
        draw, tables = attempt.random(), list(TABLES)
        table = tables[attempt.number % len(tables)]
        rounds = draw.randint(2, _ROUNDS)
        writers = tuple(
            tuple(_drawn(table, f"w{writer}n{number}", draw) for number in range(rounds)) for writer in range(WRITERS)
        )
        before = _BEFORE[attempt.number // len(tables) % len(_BEFORE)]
        return cls(table, before, writers, maintained=draw.random() < 2 / 3)


def _drawn(table: str, mark: str, draw: random.Random) -> Write:
    by = PARTITIONED_BY[table]
    partitions: list[dict[str, str]] = [{}]
    for column in by:
        partitions = [{**one, column: value} for one in partitions for value in _VALUES[column]]
    how = draw.choices(["whole", "partition", "beside"], [2, 3, 1])[0]
    where = draw.choice(partitions) if by and how == "partition" else {}
    if len(where) > 1 and draw.random() < 0.2:
        where = {by[0]: where[by[0]]}
    inside = [one for one in partitions if where.items() <= one.items()]
    into = [] if draw.random() < 0.1 and how != "beside" else draw.sample(inside, draw.randint(1, len(inside)))
    return Write(
        table,
        made_rows(table, mark, *into, n=draw.randint(1, 3)),
        where,
        beside=how == "beside",
        noted=draw.random() < 0.3,
        spooled=draw.random() < 0.3,
        delay=draw.choice([0.0, 0.0, 0.01, 0.05]),
    )


@dataclass(frozen=True)
class _Signals:
    together: Any  # a barrier of the writers
    over: Any  # set when they are done


@dataclass
class Arena:
    """The processes that race, one race after the other, and how many versions were replayed."""

    root: Root  # races lie below it, each in a root of its own
    replayed: int = 0
    _signals: _Signals = field(default_factory=lambda: _Signals(FORKED.Barrier(WRITERS), FORKED.Event()))
    _workers: list[Worker] = field(default_factory=list)

    def run(self, attempt: Attempt) -> Outcome:
        """Have the race and look at what it left."""
        race = Race.of(attempt)
        root = Root.at(f"{self.root.uri}/{attempt.number}", self.root.storage_options)
        wrong: list[str] = []
        try:
            written, seen = self._raced(root, race)
        except StuckError as error:
            wrong.append(str(error))
        else:
            states, wrong = _replayed(root, race, written)
            self.replayed += len(states)
            wrong += _readers_wrong(race.table, states, seen) + _vacuumed_wrong(root, race, states)
        if wrong:
            wrong.append(f"what is there is kept: {root.uri}")
        elif root.is_local:
            shutil.rmtree(root.uri)
        kind = "local" if root.is_local else "s3"
        return Outcome(attempt, f"{race.table}, {race.before} before, on {kind}", "\n  ".join(wrong))

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def _raced(self, root: Root, race: Race) -> tuple[dict[int, Write], list[list[Rows]]]:
        """The writes by the versions they are said to be, and what each way of reading saw, in order."""
        lake, written = Lake(root), {}
        if race.before != "absent":
            data = made_rows(race.table, "before", *_partitions_of(race.table), n=3 if race.before == "full" else 0)
            written[lake.replace(race.table, data)] = Write(race.table, data)
        self._workers += [Worker(self._signals) for _ in range(WRITERS + 2 - len(self._workers))]
        *writers, reader, keeper = self._workers
        self._signals.over.clear()
        end = time.monotonic() + _PATIENCE
        reader.ask(_read, root, race.table)
        keeper.ask(_maintain, root, race.maintained)
        for number, (worker, writes) in enumerate(zip(writers, race.writers, strict=True)):
            worker.ask(_write, root, f"writer {number}", writes)
        failed: list[str] = []
        for worker, writes in zip(writers, race.writers, strict=True):
            try:
                versions = worker.answer(seconds=max(1.0, end - time.monotonic()))
            except StuckError as error:
                failed.append(f"a writer: {error}")
                self._signals.together.abort()
                continue
            for version, write in zip(versions, writes, strict=True):
                if version in written:
                    failed.append(f"two writes are said to be version {version}")
                written[version] = write
        self._signals.over.set()
        seen: list[list[Rows]] = []
        for worker, what in ((reader, "the reader"), (keeper, "maintenance")):
            try:
                seen += worker.answer(seconds=_PATIENCE)
            except StuckError as error:
                failed.append(f"{what}: {error}")
        if failed:
            self.close()
            self._signals = _Signals(FORKED.Barrier(WRITERS), FORKED.Event())
            raise StuckError("\n  ".join(failed))
        return written, seen


def _partitions_of(table: str) -> list[dict[str, str]]:
    return [{column: _VALUES[column][n] for column in PARTITIONED_BY[table]} for n in (0, 1)]


def _write(root: Root, writer: str, writes: Sequence[Write], signals: _Signals) -> list[int]:
    lake, versions = Lake(root), []
    for number, write in enumerate(writes):
        signals.together.wait(_PATIENCE)
        time.sleep(write.delay)
        versions.append(write_to(lake, write, writer=writer, number=number))
    return versions


def _read(root: Root, table: str, signals: _Signals) -> list[list[Rows]]:
    lake = Lake(root)
    seen: list[list[Rows]] = [[], [], []]
    while True:
        last = signals.over.is_set()
        version = lake.version(table)
        found = [rows_of(lake.read(table)), [], []]
        if version is not None:
            found[1] = rows_of(lake.read(table, version=version))
            assert lake.count(table, version=version) == len(found[1])
        with connect(lake, table, threads=1) as connection:
            found[2] = rows_of(connection.sql(f'SELECT * FROM "{table}"').to_arrow_table())
        for rows, before in zip(found, seen, strict=True):
            if not before or before[-1] != rows:
                before.append(rows)
        if last:
            return seen


def _maintain(root: Root, maintained: bool, signals: _Signals) -> list[list[Rows]]:
    while maintained and not signals.over.is_set():
        maintain(Lake(root), retention=timedelta(days=1), selector_fingerprint=None)
        time.sleep(0.02)
    return []


def _replayed(root: Root, race: Race, written: dict[int, Write]) -> tuple[list[Rows], list[str]]:
    """What each version holds, and what is wrong with that."""
    lake, table, wrong = Lake(root), race.table, []
    newest = lake.version(table)
    if newest is None or max(written) > newest:
        return [], [f"the newest version is {newest}, writers were told {max(written)}"]
    states: list[Rows] = []
    for version in range(newest + 1):
        rows, before = rows_of(lake.read(table, version=version)), states[-1] if states else []
        states.append(rows)
        if version in written:
            wanted, what = written[version].after(before), f"a write of {written[version].where or 'the whole'}"
        else:
            commit = Commit.read(root, table, version)
            operation = "nothing" if commit is None else commit.info.get("operation")
            wanted, what = before, f"{operation}"
            if operation not in _BY_OTHERS:
                wrong.append(f"version {version} is {operation}, of which no writer was told")
        if rows != wanted:
            wrong.append(f"version {version}, {what}: {_difference(rows, wanted)}")
    if rows_of(lake.read(table)) != states[-1]:
        wrong.append("the newest version is not what is read")
    return states, wrong


def _readers_wrong(table: str, states: list[Rows], seen: list[list[Rows]]) -> list[str]:
    columns = [place for place, column in enumerate(TABLES[table]) if not came_later(column)]  # those that DuckDB shows
    wrong = []
    for way, found in zip(("read", "read at a version", "DuckDB"), seen, strict=True):
        possible: list[Rows] = [[], *states]  # absent, the table reads as no rows
        if way == "DuckDB":
            possible = [sorted(tuple(row[place] for place in columns) for row in rows) for rows in possible]
        at = 0
        for rows in found:
            later = [n for n in range(at, len(possible)) if possible[n] == rows]
            if not later:
                when = "of another time" if rows in possible else "that the table never was in"
                wrong.append(f"{way} saw a state {when}, {len(rows)} rows")
                break
            at = later[0]
    return wrong


def _vacuumed_wrong(root: Root, race: Race, states: list[Rows]) -> list[str]:
    if not race.maintained or not root.is_local or not states:
        return []
    shortest, maintenance.SHORTEST_RETENTION = maintenance.SHORTEST_RETENTION, timedelta(0)
    try:
        maintain(Lake(root), retention=timedelta(0), selector_fingerprint=None)
    finally:
        maintenance.SHORTEST_RETENTION = shortest
    return [] if rows_of(Lake(root).read(race.table)) == states[-1] else ["a vacuum changed the newest version"]


def _difference(rows: Rows, wanted: Rows) -> str:
    extra, lost = [row for row in rows if row not in wanted], [row for row in wanted if row not in rows]
    return f"{len(rows)} rows, not {len(wanted)}; {len(extra)} too many {extra[:1]}, {len(lost)} lost {lost[:1]}"


@contextmanager
def root_of(kind: str) -> Iterator[Root]:
    """A root on local disk, or on an S3 server of its own. Of a local one, nothing is deleted that is left in it."""
    with ExitStack() as held:
        if kind == "s3":
            yield Root.at("s3://lake/races", held.enter_context(s3_server()))
            return
        directory = Path(tempfile.mkdtemp(prefix="attninf-races-"))
        yield Root.at(directory / "root")
        if not any((directory / "root").iterdir()):
            shutil.rmtree(directory)


def main() -> None:
    """Run the attempts, and exit with 1 if any went wrong."""
    parser = seeds_parser(__doc__, count=500)
    parser.add_argument("--root", choices=("local", "s3"), default="local")
    arguments = parser.parse_args()
    with root_of(arguments.root) as root:
        arena = Arena(root)
        try:
            n_wrong = told(
                "attninf_assets_tests.torture.races",
                map(arena.run, attempts(arguments)),
                options=["--root", arguments.root],
            )
        finally:
            arena.close()
        print(f"{arena.replayed:,} commits replayed")
    sys.exit(n_wrong > 0)


if __name__ == "__main__":
    main()
