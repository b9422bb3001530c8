"""A run over a partition that is current: how long it takes, and its process's peak memory.

python -m benchmarks.bench_noop --rows 1000000
"""

import argparse
import multiprocessing as mp
import resource
import tempfile
import time

import duckdb

from attninf_assets.corpus.documents import Shard
from attninf_assets.influence.engine import Engine
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import Selector
from attninf_assets.orchestration.assets.scores import _distribution
from attninf_assets.scores.update import content_digest, update_partition_scores
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

_SELECTOR = Selector("model", "tokenizer", (Head(0, 0),), "uniform", 4096, "bos", "bfloat16")
_SHARD = Shard("web", "a", "/corpus/web/a.parquet", "parquet", "text", "id")
_WHERE = {"domain": _SHARD.domain, "shard": _SHARD.name}
_ROWS = """
    SELECT 'https://example.org/' || sha256(range::VARCHAR)[:20] AS doc_id, 'web' AS domain, 'a' AS shard,
           '/corpus/web/a.parquet' AS source_uri, range AS source_row, sha256('text' || range) AS text_sha256,
           3000 AS n_bytes, 700 AS n_tokens, 2 + random() AS loss_base, 2 + random() AS loss_reference,
           random() AS score, '{fingerprint}' AS selector_fingerprint, make_timestamptz(range) AS scored_at
    FROM range({rows})
"""


def main() -> None:
    """Print seconds and memory, of the update alone and of the asset as a run executes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attninf-bench-") as directory:
        root = Root.at(directory)
        context = mp.get_context("spawn")
        for step in (_fill, _measure):
            with context.Pool(1) as pool:
                print(pool.apply(step, (root, arguments.rows)))


def _fill(root: Root, rows: int) -> str:
    table = duckdb.sql(_ROWS.format(fingerprint=_SELECTOR.fingerprint, rows=rows)).to_arrow_table()
    for name in ("documents", "scores"):
        Lake(root).replace(name, table.select(TABLES[name].names).cast(TABLES[name]), where=_WHERE)
    return f"{rows:,} documents, their scores in {len(Lake(root).files('scores'))} files"


def _measure(root: Root, rows: int) -> str:
    def no_engine() -> Engine:
        raise AssertionError("nothing has to be scored")

    before = _peak()
    begin = time.perf_counter()
    result = update_partition_scores(Lake(root), _SHARD, _SELECTOR, load=no_engine, storage_options={})
    seconds = time.perf_counter() - begin
    assert result.was_current
    assert result.n_reused == rows
    updated = f"update: {seconds:.2f} s, peak {_peak():.0f} MB, of which {before:.0f} MB before it began"
    content_digest(result.table, selector_fingerprint=_SELECTOR.fingerprint)
    _distribution(result.table, cut=None)
    return f"{updated}\nwith data version and metadata: {time.perf_counter() - begin:.2f} s, peak {_peak():.0f} MB"


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
