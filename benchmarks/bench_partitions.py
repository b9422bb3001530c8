"""How reading one partition and committing one grow with the number of partitions in the table.

python -m benchmarks.bench_partitions --partitions 200 --partitions 5000
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from attninf_assets_tests.tables_of_scores import scores_of

_ROWS = 200
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
            for name, seconds in _measured(lake, size, arguments.repeats).items():
                ratio = seconds / first.setdefault(name, seconds)
                print(f"{size:>6} partitions  {name:<28} {seconds * 1000:>8.1f} ms  {ratio:.2f} x")


def _seed(lake: Lake, size: int) -> None:
    """All partitions, some hundred in a commit."""
    for begin in range(0, size, _PARTITIONS_PER_SEED):
        shards = range(begin, min(size, begin + _PARTITIONS_PER_SEED))
        rows = pa.concat_tables([scores_of(f"d{begin}", f"s{n}", _ROWS) for n in shards])
        lake.replace("scores", rows, where={"domain": f"d{begin}"})


def _measured(lake: Lake, size: int, repeats: int) -> dict[str, float]:
    where = {"domain": "d0", "shard": "s7"}

    def query() -> None:
        with connect(lake, "scores") as connection:
            connection.execute("SELECT avg(score) FROM scores WHERE domain = 'd0' AND shard = 's7'").fetchall()

    def commit() -> None:
        lake.replace("scores", scores_of("d0", "s7", _ROWS), where=where)

    return {
        "read one partition": _median(lambda: lake.read("scores", where=where), repeats),
        "query one partition (DuckDB)": _median(query, repeats),
        "first commits": _median(commit, repeats),
        "commits after 100 more": (_median(commit, 100), _median(commit, repeats))[1],
    }


def _median(action: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
