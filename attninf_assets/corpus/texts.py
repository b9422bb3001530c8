"""Texts of indexed documents, read back from where they landed and checked against the index."""

from collections.abc import Collection, Iterator

import pyarrow as pa

from attninf_assets.corpus.documents import BadFileError, Document, Shard
from attninf_assets.corpus.readers import read_shard
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions


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
