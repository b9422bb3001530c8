"""Stream a shard's rows: each becomes a document or is refused with a reason; none is dropped."""

import hashlib
from collections.abc import Collection, Iterator

from attninf_assets.corpus.documents import BadFileError, Document, Refusal, Shard
from attninf_assets.corpus.formats import MISSING, Row, read_rows, read_some_rows
from attninf_assets.corpus.printable import printable, shortened
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions

__all__ = ["MOST_REFUSED", "read_few", "read_shard"]

MOST_REFUSED = 1_000_000  # rows of one shard; they are kept in memory until it is read

_EXCERPT = 80  # characters

_KINDS: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    list: "a list",
    dict: "an object",
}


class _RowRefusedError(ValueError):
    """Why a row cannot be a document; the reason is its message."""


def read_shard(shard: Shard, *, storage_options: StorageOptions = NO_OPTIONS) -> Iterator[Document | Refusal]:
    """The rows of a shard in source order, each a `Document` or a `Refusal`.

    Text is streamed: memory holds a few rows, and 16 bytes for each doc_id read so far (to find duplicates). A refused
    row does not take up its doc_id.

    Raises ValueError, naming the file, if the file is missing, empty, truncated, corrupt or of another format, or if a
    column is in none of its rows, if it inflates as no text does, and after `MOST_REFUSED` refused rows. For JSONL some
    of this is known only at the end of the file.
    """
    n_refused = 0
    first_rows: dict[bytes, int] = {}
    for row in read_rows(shard, storage_options=storage_options):
        try:
            text, doc_id = _text(row), _doc_id(row, shard=shard)
            if shard.id_column is not None:
                first = first_rows.setdefault(hashlib.blake2b(doc_id.encode(), digest_size=16).digest(), row.index)
                if first != row.index:
                    raise _RowRefusedError(f"doc_id {shortened(repr(doc_id))} is a duplicate of row {first}")
        except _RowRefusedError as refused:
            n_refused += 1
            if n_refused > MOST_REFUSED:
                raise BadFileError(
                    f"{shard.shown}: more than {MOST_REFUSED:,} rows cannot be documents, the last of them "
                    f"row {row.index}: {refused}; is the file what the corpus file says?",
                    uri=shard.uri,
                    row=row.index,
                ) from None
            yield _refusal(row, shard, refused)
        else:
            yield _document(row, shard, text, doc_id)


def read_few(
    shard: Shard, rows: Collection[int], *, storage_options: StorageOptions = NO_OPTIONS
) -> Iterator[Document | Refusal]:
    """These rows of the shard, of those that are there, in order, without reading the others where that can be.

    Duplicate ids are not looked for. Raises as `read_shard` does for what it reads.
    """
    for row in read_some_rows(shard, rows, storage_options=storage_options):
        try:
            yield _document(row, shard, _text(row), _doc_id(row, shard=shard))
        except _RowRefusedError as refused:
            yield _refusal(row, shard, refused)


def _document(row: Row, shard: Shard, text: str, doc_id: str) -> Document:
    return Document(
        doc_id=doc_id,
        domain=shard.domain,
        shard=shard.name,
        source_uri=shard.uri,
        source_row=row.index,
        text=text,
    )


def _refusal(row: Row, shard: Shard, refused: _RowRefusedError) -> Refusal:
    return Refusal(
        domain=shard.domain,
        shard=shard.name,
        source_uri=shard.uri,
        source_row=row.index,
        reason=str(refused),
        doc_id=_known_id(row, shard=shard),
        excerpt=_excerpt(row),
    )


def _text(row: Row) -> str:
    if row.problem is not None:
        raise _RowRefusedError(row.problem)
    text = _string(row.text, field="text")
    if text.isspace():
        raise _RowRefusedError("text is only whitespace")
    return text


def _doc_id(row: Row, *, shard: Shard) -> str:
    if shard.id_column is None:
        return f"{shard.name}:{row.index}"
    if isinstance(row.doc_id, int) and not isinstance(row.doc_id, bool):
        return str(row.doc_id)
    doc_id = _string(row.doc_id, field="doc_id", wanted="a string or an integer")
    if doc_id.isspace():
        raise _RowRefusedError("doc_id is only whitespace")
    return doc_id


def _known_id(row: Row, *, shard: Shard) -> str | None:
    try:
        return _doc_id(row, shard=shard)
    except _RowRefusedError:
        return None


def _excerpt(row: Row) -> str | None:
    """How the row's text begins, or its line where it has no fields; None where there is nothing to be shown."""
    value = row.text if row.line is None else row.line
    if value is MISSING or value is None:
        return None
    if isinstance(value, bytes):
        text = value[: 4 * _EXCERPT].decode(errors="backslashreplace")
    else:
        text = value if isinstance(value, str) else repr(value)
    return printable(text[:_EXCERPT]) or None


def _string(value: object, *, field: str, wanted: str = "a string") -> str:
    if value is MISSING:
        raise _RowRefusedError(f"{field} is missing")
    if value is None:
        raise _RowRefusedError(f"{field} is null")
    if not isinstance(value, str | bytes):
        raise _RowRefusedError(f"{field} is {_KINDS.get(type(value), type(value).__name__)}, not {wanted}")
    if not value:
        raise _RowRefusedError(f"{field} is empty")
    try:
        if isinstance(value, bytes):
            return value.decode()
        value.encode()  # fails on lone surrogates, which JSON can spell and UTF-8 cannot
    except UnicodeError:
        raise _RowRefusedError(f"{field} is not valid UTF-8") from None
    return value
