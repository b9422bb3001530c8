"""Named selections of every kind over one table of scores: how long thresholds and documents take, how much memory.

python -m benchmarks.bench_selections --rows 1000000
python -m benchmarks.bench_selections --rows 100000000 --threads 2 --memory-limit 2GB --selection tokens

The domains, scores and ids are those of bench_thresholds. Features lie in a table beside the scores, in another order.
"""

import argparse
import multiprocessing as mp
import resource
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow as pa

from attninf_assets.selection.definitions import DomainRule, Keep, SelectionDefinition
from attninf_assets.selection.thresholds import find_thresholds, selected
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.sql import literal

_CONFOUNDERS = ("repetition", "repeated_lines", "zstd_ratio", "alphabetic")
_SELECTIONS = {
    "paper": SelectionDefinition(),
    "tokens": SelectionDefinition(keep=Keep(fraction=0.2, of="tokens")),
    "per domain": SelectionDefinition(
        keep=Keep(fraction=0.1), domains={"domain-0": DomainRule(fraction=0.3, min_tokens=64), "domain-1": "exclude"}
    ),
    "filter": SelectionDefinition(where="n_tokens >= 64 AND loss_base > 0.5"),
    "feature filter": SelectionDefinition(where="repetition < 0.3 AND n_tokens >= 64"),
    "matched length": SelectionDefinition(order="score_at_matched_length"),
    "no confounders": SelectionDefinition(order="score_without_confounders"),
    "random": SelectionDefinition(order="random"),
    "bottom": SelectionDefinition(order="bottom"),
    "temperature": SelectionDefinition(temperature=1.0),
    "bands": SelectionDefinition(bands={"0-5": 0, "5-50": 1, "50-95": 2, "95-100": 0.5}),
}
_OF_FEATURES = ("feature filter", "no confounders")
_FEATURES = pa.schema(
    [(name, pa.string()) for name in ("doc_id", "domain", "shard", "text_sha256")]
    + [(name, pa.float64()) for name in _CONFOUNDERS]
)

_SCORES = """
    COPY (
        SELECT printf('doc-%012d', range) AS doc_id,
               'domain-' || least(9, floor(-log2(1 - random())))::INT AS domain, 's' AS shard, md5('') AS text_sha256,
               (1 + exp(9 * random()))::BIGINT AS n_tokens, 1 + random() AS loss_base, random() AS score,
               'f' AS selector_fingerprint
        FROM range({rows})
    ) TO {file} (FORMAT parquet)
"""
_FEATURE_ROWS = """
    COPY (
        SELECT doc_id, domain, shard, text_sha256, random() AS repetition, random() AS repeated_lines,
               random() AS zstd_ratio, random() AS alphabetic
        FROM {scores} ORDER BY reverse(doc_id)
    ) TO {file} (FORMAT parquet)
"""


def main() -> None:
    """Print the table of measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--memory-limit", default="2GB")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--selection", choices=_SELECTIONS, action="append", help="default: all")
    arguments = parser.parse_args()
    names = arguments.selection or list(_SELECTIONS)
    print(f"{arguments.rows:,} rows, memory limit {arguments.memory_limit}, {arguments.threads} threads")
    print(f"{'selection':<16} {'thresholds s':>12} {'documents s':>12} {'CPU s':>8} {'peak MB':>8} {'selected':>12}")
    with tempfile.TemporaryDirectory(prefix="attninf-bench-") as directory:
        scores, features = (Path(directory) / f"{name}.parquet" for name in ("scores", "features"))
        duckdb.sql(_SCORES.format(rows=arguments.rows, file=literal(str(scores))))
        if set(names) & set(_OF_FEATURES):
            duckdb.sql(_FEATURE_ROWS.format(scores=literal(str(scores)), file=literal(str(features))))
        for name in names:
            with mp.get_context("spawn").Pool(1) as pool:
                found, chosen, cpu, peak, n = pool.apply(
                    _measured, (name, str(scores), str(features), arguments.memory_limit, arguments.threads)
                )
            print(f"{name:<16} {found:>12.1f} {chosen:>12.1f} {cpu:>8.1f} {peak:>8.0f} {n:>12,}", flush=True)


def _measured(
    name: str, scores: str, features: str, memory_limit: str, threads: int
) -> tuple[float, float, float, float, int]:
    """Seconds to find thresholds, seconds to stream the documents, CPU seconds, peak memory in MB, documents."""
    TABLES.setdefault("document_features", _FEATURES)
    with tempfile.TemporaryDirectory(prefix="attninf-bench-") as spill, duckdb.connect() as connection:
        connection.execute(f"SET temp_directory = {literal(spill)}")
        connection.execute(f"SET memory_limit = {literal(memory_limit)}")
        connection.execute(f"SET threads = {threads}")
        connection.execute("SET enable_progress_bar = false")
        connection.execute(f"CREATE VIEW scores AS FROM {literal(scores)}")
        if name in _OF_FEATURES:
            connection.execute(f"CREATE VIEW document_features AS FROM {literal(features)}")
        begin, cpu = time.perf_counter(), time.process_time()
        thresholds = find_thresholds(connection, selector_fingerprint="f", definition=_SELECTIONS[name])
        halfway = time.perf_counter()
        connection.register("thresholds", thresholds)
        n = sum(len(batch) for batch in selected(connection, selector_fingerprint="f"))
        end, cpu = time.perf_counter(), time.process_time() - cpu
    assert n == sum(thresholds["n_selected"].to_pylist())
    return halfway - begin, end - halfway, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, n


if __name__ == "__main__":
    main()
