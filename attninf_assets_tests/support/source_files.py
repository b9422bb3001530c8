"""Source files for tests, written as plainly as possible, and the shards that read them."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from attninf_assets.corpus.documents import Document, LandedShard, Refusal, Shard

__all__ = [
    "documents_of",
    "json_lines",
    "landed",
    "reasons_of",
    "shard_of",
    "write_jsonl",
    "write_parquet",
    "write_rows",
]


def shard_of(
    path: Path, *, format: str, id_column: str | None = None, text_column: str = "text", domain: str = "web"
) -> Shard:
    """A shard named `shard` that reads `path`."""
    return Shard(
        domain=domain, name="shard", uri=str(path), format=format, text_column=text_column, id_column=id_column
    )


def landed(shard: Shard) -> LandedShard:
    """The shard with its local file's size and time as they are now."""
    status = Path(shard.uri).stat()
    return LandedShard(shard, n_bytes=status.st_size, modified_ns=status.st_mtime_ns)


def json_lines(rows: Sequence[object]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write_jsonl(path: Path, content: bytes, *, format: str) -> None:
    if format == "jsonl.zst":
        content = zstandard.compress(content)
    elif format == "jsonl.gz":
        content = gzip.compress(content)
    path.write_bytes(content)


def write_parquet(path: Path, **columns: object) -> None:
    pq.write_table(pa.table(columns), path)


def write_rows(path: Path, rows: Sequence[dict[str, object]], *, format: str) -> None:
    """Write dicts with the same keys, in any format."""
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        write_jsonl(path, json_lines(rows), format=format)


def documents_of(rows: Sequence[Document | Refusal]) -> list[Document]:
    return [row for row in rows if isinstance(row, Document)]


def reasons_of(rows: Sequence[Document | Refusal]) -> dict[int, str]:
    """Reasons by source row."""
    return {row.source_row: row.reason for row in rows if isinstance(row, Refusal)}
