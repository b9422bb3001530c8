"""Features of documents against plain reading of the same shard: MB of text a second, and by what they are made of.

POLARS_MAX_THREADS=1 RAYON_NUM_THREADS=1 python -m benchmarks.bench_features
python -m benchmarks.bench_features --megabytes 200 --document-bytes 20000
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl

from attninf_assets.corpus.documents import Document, LandedShard, Shard
from attninf_assets.corpus.readers import read_shard
from attninf_assets.corpus.stored_index import index_and_store
from attninf_assets.scores.features.measures import measured
from attninf_assets.scores.features.near_duplicates import mark_near_duplicates
from attninf_assets.scores.features.update import update_document_features
from attninf_assets.scores.features.words import Words
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake

_AT_ONCE = 8 << 20  # bytes of text


def main() -> None:
    """Print the table of measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=32)
    parser.add_argument("--document-bytes", type=int, default=4_000, help="on average")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attninf-bench-") as directory:
        path = Path(directory) / "shard.parquet"
        texts = list(_texts(arguments.megabytes * 1e6, arguments.document_bytes))
        n_bytes = sum(len(text.encode()) for text in texts)
        pl.DataFrame({"id": [str(number) for number in range(len(texts))], "text": texts}).write_parquet(path)
        shard = Shard("web", "a", str(path), "parquet", "text", "id")
        print(f"{len(texts):,} documents, {n_bytes / 1e6:.1f} MB; {pl.thread_pool_size()} threads of Polars")
        print(f"{'':<40} {'CPU s':>7} {'MB/CPU s':>9} {'wall s':>7}")
        _timed("plain reading, each text checked", lambda: _read(shard), n_bytes)
        _timed("all features, of texts in memory", lambda: _each(texts, measured), n_bytes)
        _timed("of these, words as numbers", lambda: _each(texts, _words), n_bytes)
        _timed("of these, words and MinHash", lambda: _each(texts, _minhash), n_bytes)
        lake = Lake(Root.at(Path(directory) / "root"))
        status = path.stat()
        index_and_store(lake, LandedShard(shard, n_bytes=status.st_size, modified_ns=status.st_mtime_ns))
        before = _peak()
        _timed("document_features of the shard", lambda: update_document_features(lake, shard), n_bytes)
        print(f"{'  peak memory beyond what was held before':<40} {_peak() - before:>7.0f} MB")
        _timed("  again: nothing to do", lambda: update_document_features(lake, shard), n_bytes)
        _timed("near_duplicates of the domain", lambda: mark_near_duplicates(lake, "web"), n_bytes)


def _texts(n_bytes: float, document_bytes: int) -> Iterable[str]:
    """Made-up prose over a vocabulary that is used as words are, some of it repeated, a tenth nearly a copy."""
    rng = random.Random(1)
    vocabulary = ["".join(rng.choices("etaoinshrdlucmfwyp", k=rng.randint(2, 11))) for _ in range(50_000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    made = 0.0
    last = ""
    while made < n_bytes:
        length = max(1, round(rng.expovariate(7 / document_bytes)))
        words = rng.choices(vocabulary, weights, k=length)
        lines = [" ".join(words[begin : begin + 12]) for begin in range(0, length, 12)]
        text = f"{last} {words[0]}" if last and rng.random() < 0.1 else "\n".join(lines)
        made += len(text)
        last = text
        yield text


def _each(texts: list[str], work: Callable[[list[str]], object]) -> None:
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if held >= _AT_ONCE:
            work(batch)
            batch, held = [], 0
    if batch:
        work(batch)


def _words(batch: list[str]) -> Words:
    return Words.of(pl.Series(batch))


def _minhash(batch: list[str]) -> object:
    return _words(batch).minhash_bands()


def _read(shard: Shard) -> int:
    return sum(len(row.text_sha256) for row in read_shard(shard) if isinstance(row, Document))


def _timed(what: str, work: Callable[[], object], n_bytes: int) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:<40} {cpu:>7.2f} {n_bytes / 1e6 / max(cpu, 1e-9):>9.1f} {wall:>7.2f}", flush=True)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
