"""Source files that are not what they say, or say more than is good."""

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from attninf_assets.corpus.config import FORMATS
from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.indexing import index_shard
from attninf_assets_tests.torture.refusals import Met, faults_of_message, faults_of_reason
from attninf_assets_tests.torture.spoiling import HOSTILE_TEXTS, spoiled_bytes, spoiled_tree

__all__ = ["feed_shard"]

_LINES = (
    b"", b" ", b"\r", b"null", b"[]", b"{}", b"1", b"NaN", b'"text"', b'{"text": NaN}', b'{"text": 1e999}',
    b"{" * 5_000,
    b"[" * 200_000, b'{"text": ' * 20_000, b'{"text": "' + b"x" * 300_000 + b'"}', b'{"text": ' + b"9" * 10_000 + b"}",
    b'{"text": "\\ud800"}', b'{"text": "\xff"}', b'{"text": "a\x00b"}', b'{"text": "a", "text": "b"}',
    b"\xef\xbb\xbf{}",
    b'{"text": "a", "id": {"a": 1}}', b'{"text": "a", "id": 1e400}', b'{"text": "a", "id": ' + b"7" * 4_400 + b"}",
    b'{"text": "a", "id": "' + b"i" * 100_000 + b'"}', b'{"text": "a", "id": "\\u001b[2J"}', b'{"text": "\\u202e"}',
    b"\x00", b"\x00" * 100_000, b"\xfe\xff", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"PAR1", b'{"te\\u0078t": "a"}',
    b"{'text': 'a'}", b'{"text": "a"} {"text": "b"}', b"text\n\n\n", b"\xe2\x80\xa8", b'{"text": "\\',
    b'{"' + b"k" * 99_999,
)  # fmt: skip
_TYPES = (
    pa.string(), pa.large_string(), pa.binary(), pa.string_view(), pa.int8(), pa.uint64(), pa.float64(), pa.bool_(),
    pa.null(), pa.list_(pa.string()), pa.struct([("text", pa.string())]), pa.dictionary(pa.int32(), pa.string()),
    pa.timestamp("ns"), pa.decimal128(20, 3), pa.map_(pa.string(), pa.int32()), pa.binary(4), pa.date32(),
    pa.duration("s"),
)  # fmt: skip
_COMPRESSIONS = ("none", "snappy", "gzip", "brotli", "zstd", "lz4")
_ENCODINGS = ("PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY")


def feed_shard(directory: Path, draw: random.Random) -> Met:
    """Write a source file, and index it."""
    format = draw.choice(FORMATS)
    content = _parquet(draw) if format == "parquet" else _jsonl(format, draw)
    if draw.random() < 0.4:
        content = spoiled_bytes(content, draw)
    if draw.random() < 0.02:
        content = draw.choice([b"", b"\0" * 100, draw.randbytes(300), b"PAR1PAR1"])
    name = draw.choice(["x"] * 9 + ["\x1b[2J", "a\nERROR: forged", "\u202egnp", "x" * 240])
    file = directory / f"{name}.{format}"[:255]
    if draw.random() < 0.01:
        file.mkdir()
    elif draw.random() < 0.99:
        file.write_bytes(content)
    shard = Shard(
        domain="web",
        name="x",
        uri=str(file),
        format=format if draw.random() < 0.97 else draw.choice(FORMATS),
        text_column=draw.choice(["text"] * 9 + ["absent", "te.xt", "a\x1b", ""]),
        id_column=draw.choice([None, None, "id", "id", "absent", "text"]),
    )
    try:
        indexed = index_shard(shard)
    except ValueError as error:
        return "refused", [
            f"{fault}: {str(error)[:600]!r}" for fault in faults_of_message(str(error), place=shard.shown)
        ]
    except IsADirectoryError as error:  # whose words are the system's, as for a forbidden file
        return "refused", [] if file.name in str(error) else [f"names no file: {error}"]
    reasons = indexed.quarantine["reason"].to_pylist()
    faults = [
        f"the reason of a row {fault}: {reason[:300]!r}" for reason in reasons for fault in faults_of_reason(reason)
    ]
    rows = [*indexed.documents["source_row"].to_pylist(), *indexed.quarantine["source_row"].to_pylist()]
    if sorted(rows) != list(range(len(rows))):
        faults.append(f"{len(rows)} rows, of which some are lost or doubled")
    return "accepted" if not reasons else "accepted, with rows in the quarantine", faults


def _rows(draw: random.Random) -> list[dict[str, Any]]:
    texts = ["One text.", "Zwei, ½ λ 🂡", "x" * 5_000, "a\nb", "\u2028"]
    return [{"id": f"d{n}", "text": draw.choice(texts), "other": n} for n in range(draw.choice([1, 3, 30]))]


def _jsonl(format: str, draw: random.Random) -> bytes:
    lines = [json.dumps(row).encode() for row in _rows(draw)]
    for _ in range(draw.choice([0, 1, 3])):
        at = draw.randrange(len(lines) + 1)
        if draw.random() < 0.5:
            row, _ = spoiled_tree(_rows(draw)[0], draw)
            lines.insert(at, json.dumps(row).encode())
        else:
            lines.insert(at, draw.choice(_LINES))
    content = draw.choice([b"\n"] * 8 + [b"\r\n", b"\r", b"\n\n"]).join(lines) + draw.choice([b"\n", b""])
    if format == "jsonl":
        return content
    if draw.random() < 0.01:  # a bomb; of more, the machine's time is better spent otherwise
        content = bytes([draw.choice(b" x\n0")]) * draw.choice([70 << 20, 150 << 20])
    compress = zstandard.compress if format == "jsonl.zst" else gzip.compress
    cut = draw.randrange(len(content) + 1)
    frames = [content] if draw.random() < 0.8 else [content[:cut], content[cut:]]
    return b"".join(map(compress, frames)) + draw.choice([b""] * 9 + [b"\0" * 7, b"trailing", compress(b"")])


def _parquet(draw: random.Random) -> bytes:
    rows = _rows(draw)
    columns: dict[str, Any] = {"id": [row["id"] for row in rows], "text": [row["text"] for row in rows]}
    for name in ("id", "text"):
        if draw.random() < 0.3:
            columns[name] = _column(columns[name], draw)
    if draw.random() < 0.1:
        columns[draw.choice(HOSTILE_TEXTS).replace("\ud800", "")] = columns.pop(draw.choice(list(columns)))
    table = pa.table(columns)
    if draw.random() < 0.03:
        table = pa.table([*table.columns, table.columns[0]], [*table.column_names, table.column_names[0]])
    stream = io.BytesIO()
    dictionary = draw.random() < 0.6
    if draw.random() < 0.02:  # a bomb: one text for all rows
        n, dictionary = draw.choice([60, 600]), True
        table = pa.table({"text": ["x" * ((180 << 20) // n if draw.random() < 0.3 else 3_000)] * n})
    pq.write_table(
        table,
        stream,
        compression=draw.choice(_COMPRESSIONS),
        use_dictionary=dictionary,
        column_encoding=None if dictionary or not _all_strings(table) else draw.choice(_ENCODINGS),
        row_group_size=draw.choice([1, 7, 1 << 20]) if len(table) < 1_000 else None,
        data_page_version=draw.choice(["1.0", "2.0"]),
        data_page_size=draw.choice([64, 1 << 20]) if len(table) < 50 else None,
        write_page_checksum=draw.random() < 0.3,
        store_schema=draw.random() < 0.7,
    )
    content = stream.getvalue()
    if draw.random() < 0.3:  # within the footer, where a reader learns what to expect
        length = int.from_bytes(content[-8:-4], "little")
        footer = spoiled_bytes(content[-8 - length : -8], draw)
        claimed = len(footer) if draw.random() < 0.8 else draw.choice([0, 1, length * 2, 2**31 - 1, 2**32 - 1])
        content = content[: -8 - length] + footer + claimed.to_bytes(4, "little") + b"PAR1"
    return content


def _column(values: list[str], draw: random.Random) -> Any:
    type_ = draw.choice(_TYPES)
    try:
        return pa.array([draw.choice([value, None, "", "1", draw.choice(HOSTILE_TEXTS)]) for value in values]).cast(
            type_
        )
    except (pa.ArrowException, UnicodeError):
        return pa.nulls(len(values), type_) if draw.random() < 0.5 else pa.array(values)


def _all_strings(table: pa.Table) -> bool:
    return all(type_ == pa.string() for type_ in table.schema.types)
