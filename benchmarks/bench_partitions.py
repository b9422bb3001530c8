"""How reading one partition and committing one grow with the number of partitions in the table.

A process's first read replays the table's log; later ones, of a table that is kept open, do not.

python -m benchmarks.bench_partitions --partitions 200 --partitions 5000
"""

import argparse
import multiprocessing as mp
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import scores_of

_ROWS = 200
_WHERE = {"domain": "d0", "shard": "s7"}
_PARTITIONS_PER_SEED = 250


def main() -> None:
    """Print medians in milliseconds, and their ratio to those of the first size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, action="append", help="default: 200 and 5000")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    sizes = arguments.partitions or [200, 5000]
    first: dict[str, float] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="attninf-bench-") as directory:
            lake = Lake(Root.at(Path(directory)))
            _seed(lake, size)
            for name, seconds in _measured(lake, arguments.repeats).items():
                ratio = seconds / first.setdefault(name, seconds)
                print(f"{size:>6} partitions  {name:<28} {seconds * 1000:>8.1f} ms  {ratio:.2f} x")


def _seed(lake: Lake, size: int) -> None:
    """All partitions, some hundred in a commit."""
    for begin in range(0, size, _PARTITIONS_PER_SEED):
        shards = range(begin, min(size, begin + _PARTITIONS_PER_SEED))
        rows = pa.concat_tables([scores_of(f"d{begin}", f"s{n}", _ROWS) for n in shards])
        lake.replace("scores", rows, where={"domain": f"d{begin}"})


def _measured(lake: Lake, repeats: int) -> dict[str, float]:
    def query() -> None:
        with connect(lake, "scores", where=_WHERE) as connection:
            connection.execute("SELECT avg(score) FROM scores").fetchall()

    def commit() -> None:
        lake.replace("scores", scores_of("d0", "s7", _ROWS), where=_WHERE)

    def read() -> None:
        lake.read("scores", where=_WHERE)

    table = DeltaTable(lake.root.table_uri("scores"))

    def commit_elsewhere() -> None:
        rows = scores_of("d0", "s8", _ROWS)
        write_deltalake(table, rows, mode="overwrite", predicate="domain = 'd0' AND shard = 's8'")

    return {
        "first read of a process": statistics.median(_first_read(lake.root) for _ in range(5)),
        "read": _median(read, repeats),
        "query (DuckDB)": _median(query, repeats),
        "read after another's commit": _median(read, repeats, before=commit_elsewhere),
        "commit": _median(commit, repeats),
        "commit after 100 more": (_median(commit, 100), _median(commit, repeats))[1],
        "commit after another's": _median(commit, repeats, before=commit_elsewhere),
    }


def _first_read(root: Root) -> float:
    with mp.get_context("spawn").Pool(1) as pool:
        return pool.apply(_read_once, (root,))


def _read_once(root: Root) -> float:
    Lake(Root.at(f"{root.uri}-of-nobody")).exists("scores")  # the libraries' own start does not count
    return _median(lambda: Lake(root).read("scores", where=_WHERE), 1)


def _nothing() -> None:
    pass


def _median(action: Callable[[], object], repeats: int, *, before: Callable[[], object] = _nothing) -> float:
    seconds = []
    for _ in range(repeats):
        before()
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
