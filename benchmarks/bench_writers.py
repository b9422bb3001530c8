"""Many processes write partitions of one table at once, first writes and rewrites mixed: is a row lost or doubled?

python -m benchmarks.bench_writers --processes 16 --partitions 20
"""

import argparse
import multiprocessing as mp
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from benchmarks.rigs.s3 import s3_server
from benchmarks.rigs.tables_of_scores import run_of, scores_of

_ROWS = 50


def main() -> None:
    """Print, per kind of storage, the partitions that are exactly right afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--partitions", type=int, default=20, help="per process; every second one exists before")
    parser.add_argument("--root", choices=("local", "s3"), action="append", help="default: both")
    arguments = parser.parse_args()
    for kind in arguments.root or ("local", "s3"):
        with tempfile.TemporaryDirectory(prefix="attninf-bench-") as directory, _root(kind, directory) as root:
            _measure(kind, root, processes=arguments.processes, partitions=arguments.partitions)


@contextmanager
def _root(kind: str, directory: str) -> Iterator[Root]:
    if kind == "local":
        yield Root.at(directory)
        return
    with s3_server() as options:
        yield Root.at("s3://lake/writers", options)


def _measure(kind: str, root: Root, *, processes: int, partitions: int) -> None:
    wanted = {(f"d{process}", f"s{n}"): _ROWS + n for process in range(processes) for n in range(partitions)}
    lake = Lake(root)
    for process in range(processes):
        for n in range(0, partitions, 2):
            _write(lake, process, n, mark="old", rows=7)
    context = mp.get_context("spawn")
    together, failures = context.Barrier(processes), context.Queue()
    writers = [context.Process(target=_run, args=(root, i, partitions, together, failures)) for i in range(processes)]
    begin = time.perf_counter()
    for writer in writers:
        writer.start()
    failed = [failure for _ in writers for failure in failures.get()]
    for writer in writers:
        writer.join()
    seconds = time.perf_counter() - begin
    rows = lake.read("scores", columns=["domain", "shard", "doc_id", "selector_fingerprint"]).to_pylist()
    found = Counter((row["domain"], row["shard"]) for row in rows)
    distinct = {(row["domain"], row["doc_id"]) for row in rows}
    right = sum(found[key] == n for key, n in wanted.items())
    runs = Counter(row["domain"] for row in lake.read("scoring_runs", columns=["domain"]).to_pylist())
    print(
        f"{kind}: {right} of {len(wanted)} partitions with exactly their rows; "
        f"{len(failed)} failed writes {failed[:3]}; "
        f"{len(rows):,} rows, {len(rows) - len(distinct)} doubled, "
        f"{sum(row['selector_fingerprint'] == 'old' for row in rows)} old; "
        f"{runs.total()} of {len(wanted)} runs recorded; {seconds:.0f} s"
    )


def _run(root: Root, process: int, partitions: int, together: "mp.synchronize.Barrier", failures: "mp.Queue") -> None:
    lake = Lake(root)
    failed = []
    together.wait()
    for n in range(partitions):
        try:
            version = _write(lake, process, n, mark="new", rows=_ROWS + n)
            _record(lake, process, n, version)
        except Exception as error:
            failed.append(f"d{process}.s{n}: {error!r}"[:300])
    failures.put(failed)


def _write(lake: Lake, process: int, n: int, *, mark: str, rows: int) -> int:
    domain, shard = f"d{process}", f"s{n}"
    return lake.replace("scores", scores_of(domain, shard, rows, mark=mark), where={"domain": domain, "shard": shard})


def _record(lake: Lake, process: int, n: int, version: int) -> None:
    domain, shard = f"d{process}", f"s{n}"
    lake.append("scoring_runs", run_of(domain, shard, version), writer=f"{domain}.{shard}", number=version)


if __name__ == "__main__":
    main()
