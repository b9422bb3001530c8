"""What a selection would be at twelve fractions, by documents and by tokens, and the twenty bands: seconds, memory.

    python -m benchmarks.bench_what_if --rows 10000000 --threads 2
    python -m benchmarks.bench_what_if --rows 10000000 --threads 2 --spread ties --selections 4 --features

Every part runs in a process of its own. Ten domains, each with half as many documents as the one before it; the
selections are the best fifth of each domain by other scores.
"""

import argparse
import multiprocessing as mp
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from attninf_assets.selection.bands import score_bands
from attninf_assets.selection.scored import MEMORY
from attninf_assets.selection.what_if import what_if
from attninf_assets.store.sql import literal
from benchmarks.bench_thresholds import SPREADS

if TYPE_CHECKING:
    import duckdb

_SCORES = """
    COPY (
        SELECT printf('doc-%012d', range) AS doc_id, 'a' AS shard, 2 + random() AS loss_base,
               3 + random() AS loss_reference, 'domain-' || least(9, floor(-log2(1 - random())))::INT AS domain,
               (1 + 1000 * random())::BIGINT AS n_tokens, ({spread})::DOUBLE AS score, 'f' AS selector_fingerprint
        FROM range({rows})
    ) TO {file} (FORMAT parquet)
"""
_FEATURES = "COPY (SELECT domain, shard, doc_id, random() AS repetition FROM {scores}) TO {file} (FORMAT parquet)"
_SELECTED = """
    COPY (SELECT domain, doc_id, n_tokens, score, selector_fingerprint, 'selection-' || (range) AS selection
          FROM {scores}, range({selections}) WHERE hash(doc_id, range) % 5 = 0) TO {file} (FORMAT parquet)
"""


def main() -> None:
    """Print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--spread", choices=SPREADS, default="uniform")
    parser.add_argument("--selections", type=int, default=1)
    parser.add_argument("--features", action="store_true", help="with the documents' repetition")
    arguments = parser.parse_args()
    import duckdb  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="attninf-bench-") as directory:
        scores, selected, features = (
            str(Path(directory) / f"{name}.parquet") for name in ("scores", "kept", "features")
        )
        spread, made = SPREADS[arguments.spread], {"scores": literal(scores), "selections": arguments.selections}
        duckdb.sql(_SCORES.format(spread=spread, rows=arguments.rows, file=literal(scores)))
        duckdb.sql(_SELECTED.format(**made, file=literal(selected)))
        views = {"scores": scores, "selected_subset": selected}
        if arguments.features:
            duckdb.sql(_FEATURES.format(**made, file=literal(features)))
            views["document_features"] = features
        print(f"{arguments.rows:,} rows, {arguments.spread}, {arguments.selections} selections, limit {MEMORY}")
        print(f"{'part':<10} {'seconds':>8} {'CPU s':>8} {'peak MB':>8} {'rows':>6}")
        for part in (_what_if, _bands):
            with mp.get_context("spawn").Pool(1) as pool:
                rows, *figures = pool.apply(_measured, (part, views, arguments.threads))
            print(f"{part.__name__[1:]:<10} {' '.join(f'{figure:>8.1f}' for figure in figures)} {rows:>6}")


def _measured(
    part: "Callable[[duckdb.DuckDBPyConnection, bool], int]", views: dict[str, str], threads: int
) -> tuple[int, float, float, float]:
    import duckdb  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="attninf-bench-") as spill, duckdb.connect() as connection:
        connection.execute(f"SET temp_directory = {literal(spill)}")
        connection.execute(f"SET memory_limit = {literal(MEMORY)}")
        connection.execute(f"SET threads = {threads}")
        connection.execute("SET enable_progress_bar = false")
        for name, file in views.items():
            connection.execute(f"CREATE VIEW {name} AS FROM {literal(file)}")
        begin, cpu = time.perf_counter(), time.process_time()
        rows = part(connection, "document_features" in views)
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return rows, seconds, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _what_if(connection: "duckdb.DuckDBPyConnection", with_repetition: bool) -> int:
    return len(what_if(connection, selector_fingerprint="f", with_repetition=with_repetition))


def _bands(connection: "duckdb.DuckDBPyConnection", with_repetition: bool) -> int:
    return len(score_bands(connection, selector_fingerprint="f", with_repetition=with_repetition))


if __name__ == "__main__":
    main()
