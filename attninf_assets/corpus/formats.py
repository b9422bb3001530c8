"""The raw rows of a source file, by format: Parquet by batches, JSONL line by line, text and id as they stand there."""

import io
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate, chain, islice, pairwise
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attninf_assets.corpus.bounds import LONGEST_ROW, batch_rows, require_inflation
from attninf_assets.corpus.documents import BadFileError, Shard
from attninf_assets.corpus.printable import shortened
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.reopened_file import open_source
from attninf_assets.store.uris import redacted

__all__ = ["MISSING", "Row", "read_rows", "read_some_rows"]


class _Missing(Enum):
    MISSING = "missing"
    TOO_LONG = "too long"


MISSING: Final = _Missing.MISSING
_TOO_LONG: Final = _Missing.TOO_LONG
_READ_BYTES = 8 << 20  # at a time from the file; on S3, one request
_LINE_BYTES = 1 << 20  # decompressed at a time
_LINE_BEGINS = 400  # bytes that are kept of a line without fields
_LINES_WITHOUT_OBJECT = 100_000  # at the beginning of a file, after which none is expected


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in the file. From Parquet, strings come as their bytes."""

    index: int  # 0-based row, or line
    text: object = MISSING
    doc_id: object = MISSING
    problem: str | None = None  # why the row has no fields at all
    line: bytes | None = None  # of such a row: how it begins, if it was read


def read_rows(shard: Shard, *, storage_options: StorageOptions = NO_OPTIONS) -> Iterator[Row]:
    """Every row of the shard's file in order. A row longer than `LONGEST_ROW` bytes has a problem and no fields.

    Raises ValueError, naming the file, for a problem of the file itself, among them that it inflates as no text does.
    """
    with _naming(shard), open_source(shard.uri, storage_options) as file:
        if shard.format == "parquet":
            yield from _parquet_rows(file, shard)
        else:
            yield from _jsonl_rows(file, shard)


def read_some_rows(
    shard: Shard, rows: Collection[int], *, storage_options: StorageOptions = NO_OPTIONS
) -> Iterator[Row]:
    """These rows of the shard's file, of those that are there, in order, reading as little as the format lets.

    Of Parquet the row groups that hold one of them, of JSONL the lines up to the last. Raises as `read_rows` does, but
    sees nothing of what it does not read.
    """
    with _naming(shard), open_source(shard.uri, storage_options) as file:
        if shard.format == "parquet":
            yield from (row for row in _parquet_rows(file, shard, only=rows) if row.index in rows)
            return
        last = max(rows, default=-1)
        for index, line in enumerate(_lines(file, shard)):
            if index in rows:
                yield _jsonl_row(index, line, shard)[0]
            if index >= last:
                return


@contextmanager
def _naming(shard: Shard) -> Iterator[None]:
    """Say which file it was. A failing network or a forbidden file is not the file's fault and passes as it is."""
    try:
        yield
    except FileNotFoundError as error:
        raise BadFileError(f"{shard.shown}: there is no such file (shard {shard.key})", uri=shard.uri) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: columns whose names are no text
        if isinstance(error, OSError) and (type(error) is not OSError or "AWS Error" in str(error)):
            raise
        raise BadFileError(
            f"{shard.shown}: cannot be read as {shard.format}; truncated, corrupt or not {shard.format}: "
            f"{shortened(redacted(error))}",
            uri=shard.uri,
        ) from error
    except ValueError as error:
        raise BadFileError(str(error), uri=shard.uri) from error


def _parquet_rows(file: pa.NativeFile, shard: Shard, *, only: Collection[int] | None = None) -> Iterator[Row]:
    """The rows in order; with `only`, those of the row groups that hold one of these."""
    parquet = pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False, page_checksum_verification=True)
    schema = parquet.schema_arrow
    _check_column(schema, shard.text_column, shard=shard, role="text", integers=False)
    columns = [shard.text_column]
    if shard.id_column is not None:
        _check_column(schema, shard.id_column, shard=shard, role="id", integers=True)
        columns.append(shard.id_column)
    if parquet.metadata.num_rows == 0:
        raise ValueError(f"{shard.shown}: the file holds no rows")
    at_once = batch_rows(file, parquet.metadata, columns, uri=shard.shown)
    n_bytes, n_compressed = 0, file.size()
    firsts = [0, *accumulate(parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups))]
    held = [n for n, (first, end) in enumerate(pairwise(firsts)) if only is None or any(first <= r < end for r in only)]
    indices = chain.from_iterable(range(firsts[n], firsts[n + 1]) for n in held)
    for batch in parquet.iter_batches(batch_size=at_once, columns=columns, row_groups=held):
        texts = _values(batch.column(shard.text_column))
        doc_ids = [MISSING] * len(texts) if shard.id_column is None else _values(batch.column(shard.id_column))
        for index, text, doc_id in zip(islice(indices, len(texts)), texts, doc_ids, strict=True):
            n_bytes += len(text) if isinstance(text, bytes) else 0
            require_inflation(n_bytes, n_compressed, what=shard.shown)
            if text is _TOO_LONG or doc_id is _TOO_LONG:
                yield Row(index=index, problem=f"row is longer than {LONGEST_ROW:,} bytes")
            else:
                yield Row(index=index, text=text, doc_id=doc_id)


def _check_column(schema: pa.Schema, column: str, *, shard: Shard, role: str, integers: bool) -> None:
    found = schema.get_all_field_indices(column)
    if len(found) != 1:
        count = "no" if not found else str(len(found))
        raise ValueError(
            f"{shard.shown}: the file has {count} column {column!r} ({role} column); it has "
            f"{shortened(', '.join(schema.names))}"
        )
    type_ = schema.field(found[0]).type
    value_type = type_.value_type if pa.types.is_dictionary(type_) else type_
    if not (
        _is_stringlike(value_type) or pa.types.is_null(value_type) or (integers and pa.types.is_integer(value_type))
    ):
        wanted = "strings or integers" if integers else "strings"
        raise ValueError(f"{shard.shown}: {role} column {column!r} holds {type_}, not {wanted}")


def _is_stringlike(type_: pa.DataType) -> bool:
    tests = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
    )
    return any(test(type_) for test in tests)


def _values(column: pa.Array) -> list[object]:
    """A column as Python values, strings as the bytes they are: nothing promises that those are valid UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not _is_stringlike(column.type):
        return column.to_pylist()
    column = column.cast(pa.large_binary())
    if column.nbytes <= LONGEST_ROW:
        return column.to_pylist()
    lengths = pc.binary_length(column).to_pylist()
    return [
        _TOO_LONG if length is not None and length > LONGEST_ROW else value.as_py()
        for length, value in zip(lengths, column, strict=True)
    ]


def _jsonl_rows(file: pa.NativeFile, shard: Shard) -> Iterator[Row]:
    """Lines of JSON objects."""
    lines = objects = 0
    columns = {shard.text_column} | ({shard.id_column} if shard.id_column is not None else set())
    seen: set[str] = set()
    fields: dict[str, object] = {}
    for index, line in enumerate(_lines(file, shard)):
        lines += 1
        if lines > _LINES_WITHOUT_OBJECT and not objects:
            break
        row, found = _jsonl_row(index, line, shard)
        if found is not None:
            fields = found
            objects += 1
            seen.update(columns & fields.keys())
        yield row
    if not lines:
        raise ValueError(f"{shard.shown}: the file holds no rows")
    if not objects:
        which = f"first {_LINES_WITHOUT_OBJECT:,}" if lines > _LINES_WITHOUT_OBJECT else str(lines)
        raise ValueError(f"{shard.shown}: none of the {which} lines is a JSON object; is the file {shard.format}?")
    for column, role in ((shard.text_column, "text"), (shard.id_column, "id")):
        if column is not None and column not in seen:
            raise ValueError(
                f"{shard.shown}: {role} column {column!r} is in none of the {lines} rows; "
                f"columns there: {shortened(', '.join(fields))}"
            )


def _jsonl_row(index: int, line: bytes | None, shard: Shard) -> tuple[Row, dict[str, object] | None]:
    """The row of a line, None for one that is too long, and its fields if it has any."""
    if line is None:
        return Row(index=index, problem=f"line is longer than {LONGEST_ROW:,} bytes"), None
    try:
        fields = _json_object(line.removeprefix(b"\xef\xbb\xbf") if index == 0 else line)
    except ValueError as error:
        return Row(index=index, problem=str(error), line=line[:_LINE_BEGINS]), None
    row = Row(
        index=index,
        text=fields.get(shard.text_column, MISSING),
        doc_id=MISSING if shard.id_column is None else fields.get(shard.id_column, MISSING),
    )
    return row, fields


def _lines(file: pa.NativeFile, shard: Shard) -> Iterator[bytes | None]:
    """Every line of the decompressed file; None for one longer than `LONGEST_ROW`, which is passed over unheld.

    Arrow's decompressor reads all concatenated frames, and refuses a truncated one.
    """
    stream = pa.BufferedInputStream(file, _READ_BYTES)
    compression = {"jsonl.zst": "zstd", "jsonl.gz": "gzip"}.get(shard.format)
    reader = io.BufferedReader(pa.CompressedInputStream(stream, compression) if compression else stream, _LINE_BYTES)
    n_compressed, n_bytes = file.size(), 0
    for line in iter(lambda: reader.readline(LONGEST_ROW + 1), b""):
        n_bytes += len(line)
        if len(line) <= LONGEST_ROW or line.endswith(b"\n"):
            yield line
        else:
            del line
            for piece in iter(lambda: reader.readline(_LINE_BYTES), b""):
                n_bytes += len(piece)
                require_inflation(n_bytes, n_compressed, what=shard.shown)
                if piece.endswith(b"\n"):
                    break
            yield None
        require_inflation(n_bytes, n_compressed, what=shard.shown)


def _json_object(line: bytes) -> dict[str, object]:
    """A line's JSON object. Raises ValueError with the reason a row is refused for."""
    try:
        value = json.loads(line.rstrip(b"\r\n").decode())
    except UnicodeDecodeError:
        raise ValueError("line is not valid UTF-8") from None
    except json.JSONDecodeError as error:
        if not line.strip():
            raise ValueError("line is empty") from None
        raise ValueError(f"line is not valid JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("line is not valid JSON: nested too deeply") from None
    except ValueError:
        raise ValueError("line is not valid JSON: a number has too many digits") from None
    if not isinstance(value, dict):
        raise ValueError("line is not a JSON object")
    return value
