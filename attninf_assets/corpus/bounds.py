"""How much a source file may make of itself: of a few kilobytes, compression and dictionaries make gigabytes."""

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["INFLATES_AT_MOST", "LONGEST_ROW", "batch_rows", "require_inflation"]

LONGEST_ROW = 64 << 20  # bytes: of a line of JSON, or of a text or id in Parquet
INFLATES_AT_MOST = 200  # times its compressed size, for what is longer than one row may be; text reaches about 10
_MOST_ROWS = 64  # of Parquet at once
_SMALL = LONGEST_ROW // 8  # a column of a row group, decompressed, of which no value repeated does harm
_DICTIONARY_BATCH = 2 * LONGEST_ROW  # bytes: where dictionaries are larger, fewer rows are read at once
_ROWS_ALWAYS_TAKEN = 1_000_000  # however small the Parquet file that says it has them
_DICTIONARY_PAGE = 2  # PageType of parquet.thrift


def require_inflation(n_bytes: int, n_compressed: int, *, what: str) -> None:
    """Raise `ValueError`, naming `what`, where `n_bytes` are more than compressed text can decompress to."""
    if n_bytes > max(LONGEST_ROW, INFLATES_AT_MOST * n_compressed):
        raise ValueError(
            f"{what}: {n_compressed:,} bytes decompress to {n_bytes:,} or more, above {INFLATES_AT_MOST} times as "
            "many; no text does"
        )


def batch_rows(file: pa.NativeFile, metadata: pq.FileMetaData, columns: list[str], *, uri: str) -> int:
    """How many rows of a Parquet file may be decoded at once, so that memory does not depend on what they repeat.

    Raises `ValueError`, naming file and row group, for a column that decompresses to more than `INFLATES_AT_MOST` times
    its size, and for more rows than the file has bytes. The sizes are those of the file's footer.
    """
    if metadata.num_rows > max(_ROWS_ALWAYS_TAKEN, file.size()):
        raise ValueError(f"{uri}: the file says that it has {metadata.num_rows:,} rows, in {file.size():,} bytes")
    at_once = _MOST_ROWS
    for group in range(metadata.num_row_groups):
        chunks = (metadata.row_group(group).column(n) for n in range(metadata.num_columns))
        for chunk in chunks:
            if chunk.path_in_schema not in columns:
                continue
            whole = chunk.total_uncompressed_size
            what = f"{uri}: row group {group}, column {chunk.path_in_schema!r}"
            require_inflation(whole, chunk.total_compressed_size, what=what)
            if whole > _SMALL:
                # The one encoding besides dictionaries in which a value is written shorter than it is.
                shared = whole if "DELTA_BYTE_ARRAY" in chunk.encodings else _dictionary_bytes(file, chunk)
                at_once = min(at_once, max(1, _DICTIONARY_BATCH // max(1, shared)))
    return at_once


def _dictionary_bytes(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData) -> int:
    """Decompressed size of a column chunk's dictionary, which no metadata tells: read from the first page's header.

    That is Thrift's compact protocol: the page's type and its decompressed size are the first two fields, 32-bit
    integers, each a byte for field and type and then a zigzag varint.
    """
    offsets = [offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset]
    header = file.read_at(16, min(offsets))
    kind, size = header[:1], 0
    if kind != b"\x15" or header[1] >> 1 != _DICTIONARY_PAGE:
        return 0
    for place, byte in enumerate(header[3:8]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    return size >> 1
