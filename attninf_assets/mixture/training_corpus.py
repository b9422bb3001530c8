"""The training corpus: the whole corpus plus the selected subset, each at its weight, shuffled globally."""

import hashlib
import io
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attninf_assets.mixture.corpus_files import STAGING, remove_leftovers, sha256_of
from attninf_assets.mixture.manifest import CORPUS_DIRECTORY, CORPUS_SCHEMA, CorpusFile, Manifest, Share
from attninf_assets.mixture.shuffle import Row, Shuffle, random_bits
from attninf_assets.store.root import Root
from attninf_assets.store.scratch import scratch_directory

__all__ = ["MixedDocument", "copies", "write_training_corpus"]

_ROW_GROUP_BYTES = 64 << 20  # of text
_BUCKET_BYTES = 128 << 20  # of text; a bucket is in memory twice while it is sorted


@dataclass(frozen=True)
class MixedDocument:
    """A document on its way into the training corpus."""

    doc_id: str
    domain: str
    text: str
    n_tokens: int | None  # None: never counted, because the document has no score
    selected: int  # how often it is selected: 0, 1, or the copies that its band has


def copies(weight: Fraction, *, seed: int, source: str, domain: str, doc_id: str) -> int:
    """How often a document appears at that weight: floor(weight) times, and once more with the odds of the rest.

    copies = floor(weight) + [u < weight - floor(weight)], u uniform in [0, 1), a function of the arguments alone.
    """
    whole = math.floor(weight)
    rest = weight - whole
    return whole + (rest > 0 and random_bits("copies", seed, source, 0, domain, doc_id) < rest * 2**64)


def write_training_corpus(
    documents: Iterable[MixedDocument],
    destination: Root,
    *,
    n_bytes: int,
    seed: int,
    corpus_weight: float = 1.0,
    selected_weight: float = 1.0,
    rows_per_file: int = 100_000,
    provenance: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write `training_corpus/`: zstd Parquet files in one global random order, and the manifest that names them.

    Every document gives `copies(corpus_weight)` rows of source `corpus`, and, if selected n times,
    `copies(n * selected_weight)` of source `selected`. The result depends on the set of documents, the weights, the
    seed and `rows_per_file`, not on the order in which documents come, and repeats byte for byte. `n_bytes`, the size
    of all documents' texts in UTF-8, only says how finely to divide the work, so that it takes some 256 MB of memory
    however large the corpus is; what is not in memory waits, compressed, in the temporary directory.

    Files are named by their content and the manifest is written last, so readers of the manifest see the old corpus
    or the new, whole; then files it does not name are removed, those that killed runs left among them. One run at a
    time may write a root.

    Raises ValueError for a weight that is negative or not finite, for files without rows and for a document given
    twice, RuntimeError if another run removed files of this one.
    """
    weights = {"corpus": _exact("corpus_weight", corpus_weight), "selected": _exact("selected_weight", selected_weight)}
    if rows_per_file < 1:
        raise ValueError(f"rows_per_file {rows_per_file!r}: expected at least 1")
    n_buckets = max(1, math.ceil(n_bytes * sum(weights.values()) / _BUCKET_BYTES))  # as if all were selected
    with scratch_directory("shuffle") as directory:
        shuffle = Shuffle(directory, seed=seed, n_buckets=n_buckets)
        shares = _mix(documents, shuffle, weights, seed)
        staging = f"{STAGING}{uuid.uuid4().hex}"
        try:
            files = tuple(_write_files(shuffle.in_order(), destination, staging, rows_per_file))
        finally:
            destination.delete(staging)
    manifest = Manifest(
        files=files,
        shares=shares,
        corpus_weight=float(corpus_weight),
        selected_weight=float(selected_weight),
        seed=seed,
        rows_per_file=rows_per_file,
        provenance=dict(provenance or {}),
    )
    manifest.write(destination)
    present, _ = remove_leftovers(destination, manifest)
    if lost := sorted({file.path for file in manifest.files}.difference(present.sizes)):
        raise RuntimeError(
            f"{destination.uri}/{lost[0]}: removed by another run; {len(lost)} files lost, write it again"
        )
    return manifest


def _exact(name: str, weight: float) -> Fraction:
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"{name} {weight!r}: expected a finite number, at least 0")
    return Fraction(str(weight))


def _mix(
    documents: Iterable[MixedDocument], shuffle: Shuffle, weights: Mapping[str, Fraction], seed: int
) -> tuple[Share, ...]:
    """Send every copy of every document into the shuffle, and count what went."""
    totals: dict[tuple[str, str], np.ndarray] = {}
    for document in documents:
        for source, weight in weights.items():
            times = document.selected if source == "selected" else 1
            n = copies(weight * times, seed=seed, source=source, domain=document.domain, doc_id=document.doc_id)
            if not n:
                continue
            for copy in range(n):
                shuffle.add(Row(document.domain, document.doc_id, source, copy, document.text))
            total = totals.setdefault((document.domain, source), np.zeros(4, dtype=np.int64))
            total += (1, n, n * (document.n_tokens or 0), n * (document.n_tokens is None))
    return tuple(Share(*origin, *total.tolist()) for origin, total in sorted(totals.items()))


def _write_files(tables: Iterator[pa.Table], root: Root, staging: str, rows_per_file: int) -> Iterator[CorpusFile]:
    """Write the rows in order; a file gets its name under `training_corpus/` when it is whole."""
    for number, numbered in groupby(_numbered(tables, rows_per_file), key=itemgetter(0)):
        staged = f"{staging}/{number:06d}.parquet"
        n_rows = 0
        with root.open_output(staged) as stream:
            sink = _Digesting(stream)
            with pq.ParquetWriter(sink, CORPUS_SCHEMA, compression="zstd") as writer:
                for group in _row_groups(piece for _, piece in numbered):
                    writer.write_table(group, row_group_size=len(group))
                    n_rows += len(group)
        sha256 = sink.sha256.hexdigest()
        path = f"{CORPUS_DIRECTORY}/part-{number:06d}-{sha256[:16]}.parquet"
        if not root.exists(path) or sha256_of(root, path) != (sha256, sink.size):
            root.move(staged, path)
        yield CorpusFile(path, n_rows, sink.size, sha256)


def _numbered(tables: Iterable[pa.Table], rows_per_file: int) -> Iterator[tuple[int, pa.Table]]:
    """The rows in pieces, each with the number of the file it belongs to."""
    row = 0
    for table in tables:
        begin = 0
        while begin < len(table):
            piece = table.slice(begin, rows_per_file - row % rows_per_file)
            yield row // rows_per_file, piece
            begin += len(piece)
            row += len(piece)


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows in groups that end where their text reaches _ROW_GROUP_BYTES, wherever the tables ended."""
    pending: list[pa.Table] = []
    pending_bytes = 0
    for table in tables:
        ends = np.cumsum(pc.binary_length(table["text"]).to_numpy())
        begin, done = 0, 0
        while begin < len(table):
            end = int(np.searchsorted(ends, done + _ROW_GROUP_BYTES - pending_bytes)) + 1
            pending.append(table.slice(begin, end - begin))
            if end > len(table):
                pending_bytes += int(ends[-1]) - done
                break
            yield _group(pending)
            pending, pending_bytes = [], 0
            begin, done = end, int(ends[end - 1])
    if pending:
        yield _group(pending)


def _group(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).select(CORPUS_SCHEMA.names).combine_chunks().cast(CORPUS_SCHEMA)


class _Digesting(io.RawIOBase):
    """A file that is hashed while it is written. Closing the stream below is its owner's part."""

    def __init__(self, stream: pa.NativeFile) -> None:
        super().__init__()
        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        """Write and hash; returns the bytes taken, all of them."""
        self._stream.write(data)
        self.sha256.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        """Bytes written."""
        return self.size

    def writable(self) -> bool:
        """It is."""
        return True
