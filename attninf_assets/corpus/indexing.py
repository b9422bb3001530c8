"""The index of a shard: its documents, the rows it refuses, and a digest that changes when either does."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import Refusal, Shard
from attninf_assets.corpus.printable import shortened
from attninf_assets.corpus.readers import read_shard
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.schemas import TABLES

__all__ = ["IndexedShard", "KnownElsewhere", "index_shard"]

KnownElsewhere = Callable[[pa.Array], set[str]]
_INDEX = pa.schema([TABLES["documents"].field(name) for name in ("doc_id", "source_row", "text_sha256", "n_bytes")])
_BATCH_ROWS = 8192
_PREVIEWS = 3
_PREVIEW_CHARACTERS = 200


@dataclass(frozen=True)
class IndexedShard:
    """A shard's index: each row is in exactly one of the tables `documents` and `quarantine`, in source order."""

    shard: Shard
    documents: pa.Table
    quarantine: pa.Table
    content_digest: str  # hex sha256 of documents and refusals: the shard's data version
    n_bytes: int  # UTF-8 bytes of all documents
    previews: tuple[str, ...]  # beginnings of the first readable documents

    @property
    def n_documents(self) -> int:
        """The number of the shard's documents."""
        return self.documents.num_rows

    @property
    def n_refused(self) -> int:
        """The number of rows that were refused."""
        return self.quarantine.num_rows


def index_shard(
    shard: Shard,
    *,
    storage_options: StorageOptions = NO_OPTIONS,
    known_elsewhere: KnownElsewhere | None = None,
) -> IndexedShard:
    """The index of the shard, made in one reading; texts are read, hashed and let go.

    `known_elsewhere` is given the shard's doc_ids and returns those that live in another shard of the domain already;
    they are refused as duplicates. It is called once, and not at all for a shard without documents.

    Raises ValueError, naming the file, as `read_shard` does.
    """
    refusals: list[tuple[int, str]] = []
    previews: list[str] = []
    batches: list[pa.RecordBatch] = []
    pending: list[tuple[str, int, str, int]] = []
    for row in read_shard(shard, storage_options=storage_options):
        if isinstance(row, Refusal):
            refusals.append((row.source_row, row.reason))
            continue
        if len(previews) < _PREVIEWS:
            previews.append(row.text[:_PREVIEW_CHARACTERS])
        pending.append((row.doc_id, row.source_row, row.text_sha256, row.n_bytes))
        if len(pending) == _BATCH_ROWS:
            batches.append(_batch(pending))
            pending.clear()
    if pending:
        batches.append(_batch(pending))
    accepted = pa.Table.from_batches(batches, schema=_INDEX)

    if known_elsewhere is not None and accepted.num_rows:
        ids = accepted["doc_id"].combine_chunks()
        elsewhere = pc.is_in(ids, value_set=pa.array(sorted(known_elsewhere(ids)), pa.string()))
        refusals += [
            (row, f"doc_id {shortened(repr(doc_id))} is a duplicate of a document in another shard")
            for doc_id, row in zip(
                *(accepted.filter(elsewhere)[name].to_pylist() for name in ("doc_id", "source_row")), strict=True
            )
        ]
        accepted = accepted.filter(pc.invert(elsewhere))
    refusals.sort()

    rows, reasons = [row for row, _ in refusals], [reason for _, reason in refusals]
    refused = pa.table({"source_row": pa.array(rows, pa.int64()), "reason": pa.array(reasons, pa.string())})
    return IndexedShard(
        shard=shard,
        documents=_as_table("documents", accepted, shard=shard),
        quarantine=_as_table("quarantine", refused, shard=shard),
        content_digest=_content_digest(accepted, refusals),
        n_bytes=pc.sum(accepted["n_bytes"]).as_py() or 0,
        previews=tuple(previews),
    )


def _batch(rows: list[tuple[str, int, str, int]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _INDEX, strict=True)],
        schema=_INDEX,
    )


def _as_table(name: str, rows: pa.Table, *, shard: Shard) -> pa.Table:
    """The rows in the schema of table `name`, with the columns that are the same for the whole shard."""
    constants = {"domain": shard.domain, "shard": shard.name, "source_uri": shard.uri}
    return pa.table(
        [
            pa.repeat(pa.scalar(constants[field.name]), rows.num_rows) if field.name in constants else rows[field.name]
            for field in TABLES[name]
        ],
        schema=TABLES[name],
    )


def _content_digest(accepted: pa.Table, refusals: list[tuple[int, str]]) -> str:
    digest = hashlib.sha256()
    for batch in accepted.select(["doc_id", "text_sha256"]).to_batches():
        for doc_id, text_sha256 in zip(batch["doc_id"].to_pylist(), batch["text_sha256"].to_pylist(), strict=True):
            digest.update(json.dumps(["document", doc_id, text_sha256]).encode())
    for row, reason in refusals:
        digest.update(json.dumps(["refusal", row, reason]).encode())
    return digest.hexdigest()
