"""Exact score thresholds against one window query: same cuts, how long, how much memory.

python -m benchmarks.bench_thresholds --rows 2000000 --memory-limit 2GB
python -m benchmarks.bench_thresholds --rows 100000000 --threads 2 --spread ties --method narrowing
"""

import argparse
import multiprocessing as mp
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from attninf_assets.selection.definitions import Budget, Keep, SelectionDefinition
from attninf_assets.selection.thresholds import find_thresholds
from attninf_assets.store.sql import literal

_FRACTION = 0.2

# Spreads of scores: as they come, with ties and nothing finite in places, one score for all, and a range of a
# millionth with a few far outliers.
SPREADS = {
    "uniform": "random()",
    "ties": "CASE WHEN random() < 0.01 THEN 'nan'::DOUBLE WHEN random() < 0.01 THEN NULL"
    " WHEN random() < 0.3 THEN 0.8 ELSE round(random(), 4) END",
    "one score": "0.25",
    "narrow, outliers": "CASE WHEN random() < 1e-5 THEN 1e6 * random() ELSE 0.25 + 1e-6 * random() END",
}

# Ten domains, each with half as many documents as the one before it.
_SCORES = """
    COPY (
        SELECT printf('doc-%012d', range) AS doc_id, 's' AS shard,
               'domain-' || least(9, floor(-log2(1 - random())))::INT AS domain,
               (1 + 1000 * random())::BIGINT AS n_tokens, ({spread})::DOUBLE AS score, 'f' AS selector_fingerprint
        FROM range({rows})
    ) TO {file} (FORMAT parquet)
"""

_WINDOW = """
    SELECT domain, count(*), sum(n_tokens), min_by(doc_id, place) FROM (
        SELECT domain, doc_id, n_tokens, -row_number() OVER best AS place, sum(n_tokens) OVER best AS tokens,
               row_number() OVER best AS n, count(*) OVER whole AS documents, sum(n_tokens) OVER whole AS tokens_total
        FROM scores WHERE isfinite(score)
        WINDOW best AS (PARTITION BY domain ORDER BY score DESC, doc_id DESC ROWS UNBOUNDED PRECEDING),
               whole AS (PARTITION BY domain)
    ) WHERE {reached} GROUP BY domain ORDER BY domain
"""
_REACHED = {  # a fifth, in integers
    "documents": "n <= (documents + 4) // 5",
    "tokens": "tokens - n_tokens < (tokens_total + 4) // 5",
}

Cuts = list[tuple[str, int, int, str]]


def main() -> None:
    """Print the table of measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--memory-limit", default="2GB")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--spread", choices=SPREADS, action="append", help="default: all")
    parser.add_argument("--budget", choices=_REACHED, action="append", help="default: both")
    parser.add_argument("--method", choices=("narrowing", "window"), action="append", help="default: both")
    arguments = parser.parse_args()
    known: dict[str, Callable[..., Cuts]] = {"narrowing": _by_narrowing, "window": _by_window}
    methods = {name: known[name] for name in arguments.method or known}
    print(f"{arguments.rows:,} rows, memory limit {arguments.memory_limit}, {arguments.threads} threads")
    titles = f"{'seconds':>8} {'CPU s':>8} {'peak MB':>8} {'selected':>12}"
    print(f"{'scores':<18} {'budget':<10} {'method':<10} {titles}  same cuts")
    with tempfile.TemporaryDirectory(prefix="attninf-bench-") as directory:
        file = Path(directory) / "scores.parquet"
        for spread in arguments.spread or SPREADS:
            duckdb.sql(_SCORES.format(spread=SPREADS[spread], rows=arguments.rows, file=literal(str(file))))
            for budget in arguments.budget or _REACHED:
                found: list[Cuts | None] = []
                for name, method in methods.items():
                    cuts, *measured = _alone(method, str(file), budget, arguments.memory_limit, arguments.threads)
                    found.append(cuts)
                    selected = f"{sum(n for _, n, _, _ in cuts):,}" if cuts else "no memory"
                    same = "" if len(found) < 2 or None in found else str(found[0] == found[1])
                    figures = " ".join(f"{figure:>8.1f}" for figure in measured)
                    print(f"{spread:<18} {budget:<10} {name:<10} {figures} {selected:>12}  {same}")


def _alone(
    method: Callable[..., Cuts], file: str, budget: str, memory_limit: str, threads: int
) -> tuple[Cuts | None, float, float, float]:
    """Run in a process of its own: the cuts (None: out of memory), seconds, CPU seconds, peak memory in MB."""
    context = mp.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measured, (method, file, budget, memory_limit, threads))


def _measured(
    method: Callable[..., Cuts], file: str, budget: str, memory_limit: str, threads: int
) -> tuple[Cuts | None, float, float, float]:
    with tempfile.TemporaryDirectory(prefix="attninf-bench-") as spill, duckdb.connect() as connection:
        connection.execute(f"SET temp_directory = {literal(spill)}")
        connection.execute(f"SET memory_limit = {literal(memory_limit)}")
        connection.execute(f"SET threads = {threads}")
        connection.execute("SET enable_progress_bar = false")
        connection.execute(f"CREATE VIEW scores AS FROM {literal(file)}")
        begin, cpu = time.perf_counter(), time.process_time()
        cuts: Cuts | None
        try:
            cuts = method(connection, budget)
        except duckdb.OutOfMemoryException:
            cuts = None
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return cuts, seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _by_narrowing(connection: duckdb.DuckDBPyConnection, budget: Budget) -> Cuts:
    definition = SelectionDefinition(keep=Keep(fraction=_FRACTION, of=budget))
    found = find_thresholds(connection, selector_fingerprint="f", definition=definition).to_pylist()
    return [(row["domain"], row["n_selected"], row["tokens_selected"], row["threshold_doc_id"]) for row in found]


def _by_window(connection: duckdb.DuckDBPyConnection, budget: Budget) -> Cuts:
    return connection.execute(_WINDOW.format(reached=_REACHED[budget])).fetchall()


if __name__ == "__main__":
    main()
