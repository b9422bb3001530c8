"""A global shuffle in bounded memory: every row gets a random 64-bit key, buckets of keys go to disk, and
bucket after bucket is sorted."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Row", "Shuffle", "random_bits"]

_SPILLED = pa.schema(
    [
        ("key", pa.uint64()),
        ("domain", pa.string()),
        ("doc_id", pa.string()),
        ("source", pa.string()),
        ("copy", pa.int64()),
        ("text", pa.large_string()),  # a bucket may hold more text than 32-bit offsets reach
    ]
)
_BUFFERED_CHARACTERS = 128 << 20
_ROW_OVERHEAD = 200  # characters' worth of memory of a row without its text


class Row(NamedTuple):
    """A row of the training corpus before the shuffle; all fields but the text identify it."""

    domain: str
    doc_id: str
    source: str
    copy: int
    text: str


def random_bits(purpose: str, seed: int, source: str, copy: int, domain: str, doc_id: str) -> int:
    """A pseudo-random 64-bit number that depends on the arguments alone, and is the same on any machine."""
    text = f"{purpose}:{seed}:{source}:{copy}:{len(domain)}:{domain}:{doc_id}"
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[:8], "big")


class Shuffle:
    """A global shuffle on disk: rows are added in any order and come back in the order of their random keys.

    At most one bucket of text is in memory at a time (about twice, while it is sorted).
    """

    def __init__(self, directory: Path, *, seed: int, n_buckets: int) -> None:
        self._directory = directory
        self._seed = seed
        self._n_buckets = n_buckets
        self._buffers: dict[int, list[tuple[int, Row]]] = {}
        self._buffered = 0

    def add(self, row: Row) -> None:
        """Add a row."""
        key = random_bits("order", self._seed, row.source, row.copy, row.domain, row.doc_id)
        self._buffers.setdefault(key * self._n_buckets >> 64, []).append((key, row))
        self._buffered += len(row.text) + _ROW_OVERHEAD
        if self._buffered > _BUFFERED_CHARACTERS:
            self._flush()

    def in_order(self) -> Iterator[pa.Table]:
        """All rows, in tables of any length, with the columns domain, doc_id, source and text.

        Raises ValueError if a document was given twice.
        """
        self._flush()
        for bucket in range(self._n_buckets):
            path = self._path(bucket)
            if path.exists():
                yield _sorted(_read_streams(path))
                path.unlink()

    def _flush(self) -> None:
        for bucket, keyed in self._buffers.items():
            columns = [[key for key, _ in keyed], *([row[i] for _, row in keyed] for i in range(len(Row._fields)))]
            batch = pa.record_batch(columns, schema=_SPILLED)
            with (
                self._path(bucket).open("ab") as file,
                pa.ipc.new_stream(file, _SPILLED, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream,
            ):
                stream.write_batch(batch)
        self._buffers.clear()
        self._buffered = 0

    def _path(self, bucket: int) -> Path:
        return self._directory / f"bucket-{bucket:06d}.arrows"


def _read_streams(path: Path) -> pa.Table:
    """The rows of a file that holds one Arrow stream after another."""
    tables = []
    size = path.stat().st_size
    with pa.OSFile(str(path)) as file:
        while file.tell() < size:
            tables.append(pa.ipc.open_stream(file).read_all())
    return pa.concat_tables(tables)


def _sorted(rows: pa.Table) -> pa.Table:
    identity = ["domain", "doc_id", "source", "copy"]
    order = pc.sort_indices(rows, sort_keys=[(column, "ascending") for column in ("key", *identity)])
    rows = rows.take(order)
    keys = rows["key"].to_numpy()
    for index in np.flatnonzero(keys[1:] == keys[:-1]).tolist():
        one, other = (rows.select(identity).slice(index + i, 1).to_pylist()[0] for i in (0, 1))
        if one == other:
            raise ValueError(f"document {one['doc_id']!r} of domain {one['domain']!r} was given twice")
    return rows.drop_columns(["key", "copy"])
