"""Texts of indexed documents, read back from where they landed and checked against the index."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa

from attninf_assets.corpus.documents import BadFileError, Document, Shard
from attninf_assets.corpus.readers import read_few, read_shard
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions

__all__ = ["FoundText", "few_texts", "indexed_documents"]


def indexed_documents(
    shard: Shard,
    documents: pa.Table,
    *,
    only: Collection[str] | None = None,
    storage_options: StorageOptions = NO_OPTIONS,
) -> Iterator[Document]:
    """The documents of the shard's index with their texts, in source order; `only` some doc_ids if given.

    `documents` holds the shard's rows of the table of that name. Raises `ValueError` naming file and row where the
    source no longer holds the text that was indexed: nothing is ever scored or mixed under another text's id.
    """
    wanted = {
        row: (doc_id, text_sha256)
        for row, doc_id, text_sha256 in zip(
            documents["source_row"].to_pylist(),
            documents["doc_id"].to_pylist(),
            documents["text_sha256"].to_pylist(),
            strict=True,
        )
        if only is None or doc_id in only
    }
    again = f"the source changed since it was indexed; materialize raw_corpus for {shard.key} again"
    if not wanted:
        return
    for row in read_shard(shard, storage_options=storage_options):
        expected = wanted.pop(row.source_row, None)
        if expected is None:
            continue
        if not isinstance(row, Document) or (row.doc_id, row.text_sha256) != expected:
            raise BadFileError(
                f"{shard.shown}: row {row.source_row} is no longer document {expected[0]!r}: {again}",
                uri=shard.uri,
                row=row.source_row,
            )
        yield row
        if not wanted:
            return
    row, (doc_id, _) = next(iter(wanted.items()))
    raise BadFileError(
        f"{shard.shown}: {len(wanted)} indexed rows are gone, document {doc_id!r} among them: {again}",
        uri=shard.uri,
        row=row,
    )


@dataclass(frozen=True)
class FoundText:
    """What stands at an indexed document's place in its source: a text, and what is wrong with it, if anything is."""

    doc_id: str
    text: str | None
    problem: str | None  # None: it is the very text that was indexed


def few_texts(
    shard: Shard, documents: pa.Table, *, storage_options: StorageOptions = NO_OPTIONS
) -> Iterator[FoundText]:
    """What stands now at the places of a few documents of the shard, in source order; for a person to see.

    `documents` are their rows of the table of that name. Reads as little of the source as its format lets. A text that
    is not the indexed one is given with that said of it, and where none can be had it is said why: nothing is raised
    but for a network that fails.
    """
    left = {row["source_row"]: row for row in documents.sort_by("source_row").to_pylist()}
    failed = None
    try:
        for found in read_few(shard, frozenset(left), storage_options=storage_options):
            row = left.pop(found.source_row)
            if not isinstance(found, Document):
                refused = f"row {found.source_row} of {shard.shown} cannot be a document any more: {found.reason}"
                yield FoundText(row["doc_id"], None, refused)
            elif found.doc_id != row["doc_id"]:
                another = f"row {found.source_row} of {shard.shown} is another document now, {found.doc_id!r}"
                yield FoundText(row["doc_id"], None, another)
            else:
                changed = found.text_sha256 != row["text_sha256"]
                problem = "the text is another than was indexed: its sha256 differs" if changed else None
                yield FoundText(row["doc_id"], found.text, problem)
    except BadFileError as error:
        failed = str(error)
    for number, row in left.items():
        yield FoundText(row["doc_id"], None, failed or f"{shard.shown} has no row {number} any more")
