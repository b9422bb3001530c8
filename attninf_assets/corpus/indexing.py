"""The index of a shard: its documents, the rows it refuses, and a digest that changes when either does."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import Refusal, Shard
from attninf_assets.corpus.oddities import Oddities, OddityCounter
from attninf_assets.corpus.printable import printable, shortened
from attninf_assets.corpus.readers import read_shard
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.uris import redacted

__all__ = ["HELD_ELSEWHERE", "IndexedShard", "index_shard", "refused_file"]

HELD_ELSEWHERE = "is a duplicate of a document in another shard"  # how the reason ends
_INDEX = pa.schema([TABLES["documents"].field(name) for name in ("doc_id", "source_row", "text_sha256", "n_bytes")])
_REFUSED = pa.schema([TABLES["quarantine"].field(n) for n in ("source_row", "reason", "doc_id", "held_by", "excerpt")])
_BATCH_ROWS = 8192
_PREVIEWS = 3
_PREVIEW_CHARACTERS = 200


@dataclass(frozen=True)
class IndexedShard:
    """A shard's index: each row is in exactly one of the tables `documents` and `quarantine`, in source order."""

    shard: Shard
    documents: pa.Table
    quarantine: pa.Table
    previews: tuple[str, ...]  # beginnings of the first readable documents
    oddities: Oddities  # of the readable documents

    @property
    def n_documents(self) -> int:
        """The number of the shard's documents."""
        return self.documents.num_rows

    @property
    def n_refused(self) -> int:
        """The number of rows that were refused."""
        return self.quarantine.num_rows

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes of all documents."""
        return pc.sum(self.documents["n_bytes"]).as_py() or 0

    @cached_property
    def content_digest(self) -> str:
        """Hex sha256 of documents and refusals: the shard's data version."""
        digest = hashlib.sha256()
        for kind, table, columns in (
            ("document", self.documents, ["doc_id", "text_sha256"]),
            ("refusal", self.quarantine, ["source_row", "reason"]),
        ):
            for batch in table.select(columns).to_batches():
                for left, right in zip(*(batch[column].to_pylist() for column in columns), strict=True):
                    digest.update(json.dumps([kind, left, right]).encode())
        return digest.hexdigest()

    def without(self, held: Mapping[str, str]) -> "IndexedShard":
        """The same, with the documents refused whose ids other shards of the domain hold; `held` says which, by id."""
        ids = self.documents["doc_id"]
        elsewhere = pc.is_in(ids, value_set=pa.array(sorted(held), pa.string()))
        if not pc.any(elsewhere).as_py():
            return self
        duplicates = self.documents.filter(elsewhere)
        doc_ids = duplicates["doc_id"].to_pylist()
        refused = pa.table(
            {
                "source_row": duplicates["source_row"],
                "reason": pa.array([f"doc_id {shortened(repr(doc_id))} {HELD_ELSEWHERE}" for doc_id in doc_ids]),
                "doc_id": duplicates["doc_id"],
                "held_by": pa.array([held[doc_id] for doc_id in doc_ids], pa.string()),
                "excerpt": pa.nulls(len(doc_ids), pa.string()),
            },
            schema=_REFUSED,
        )
        version = duplicates["source_version"][0].as_py()
        quarantine = pa.concat_tables(
            [self.quarantine, _as_table("quarantine", refused, shard=self.shard, version=version)]
        )
        return replace(
            self, documents=self.documents.filter(pc.invert(elsewhere)), quarantine=quarantine.sort_by("source_row")
        )


def index_shard(
    shard: Shard, *, version: str | None = None, storage_options: StorageOptions = NO_OPTIONS
) -> IndexedShard:
    """The index of the shard by itself, made in one reading; texts are read, hashed and let go.

    `version` is a mark of the file as it was just before. Raises ValueError, naming the file, as `read_shard` does.
    """
    refusals: list[tuple[int, str, str | None, None, str | None]] = []
    previews: list[str] = []
    batches: list[pa.RecordBatch] = []
    pending: list[tuple[str, int, str, int]] = []
    odd = OddityCounter()
    for row in read_shard(shard, storage_options=storage_options):
        if isinstance(row, Refusal):
            refusals.append((row.source_row, row.reason, row.doc_id, None, row.excerpt))
            continue
        if len(previews) < _PREVIEWS:
            previews.append(row.text[:_PREVIEW_CHARACTERS])
        odd.see(row)
        pending.append((row.doc_id, row.source_row, row.text_sha256, row.n_bytes))
        if len(pending) == _BATCH_ROWS:
            batches.append(_batch(pending, _INDEX))
            pending.clear()
    if pending:
        batches.append(_batch(pending, _INDEX))
    accepted = pa.Table.from_batches(batches, schema=_INDEX)
    refused = pa.Table.from_batches([_batch(refusals, _REFUSED)] if refusals else [], schema=_REFUSED)
    return IndexedShard(
        shard=shard,
        documents=_as_table("documents", accepted, shard=shard, version=version),
        quarantine=_as_table("quarantine", refused, shard=shard, version=version),
        previews=tuple(previews),
        oddities=odd.counted(accepted["text_sha256"]),
    )


def refused_file(shard: Shard, error: ValueError, *, version: str | None) -> pa.Table:
    """The row of `quarantine` for a file that cannot be indexed at all, with the reason."""
    refused = _batch([(None, f"the whole file: {printable(redacted(error))}", None, None, None)], _REFUSED)
    return _as_table("quarantine", pa.Table.from_batches([refused]), shard=shard, version=version)


def _batch(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)],
        schema=schema,
    )


def _as_table(name: str, rows: pa.Table, *, shard: Shard, version: str | None) -> pa.Table:
    """The rows in the schema of table `name`, with the columns that are the same for the whole shard."""
    constants = {
        "domain": shard.domain,
        "shard": shard.name,
        "source_uri": shard.uri,
        "source_version": version,
    }
    return pa.table(
        [
            pa.repeat(pa.scalar(constants[field.name], field.type), rows.num_rows)
            if field.name in constants
            else rows[field.name]
            for field in TABLES[name]
        ],
        schema=TABLES[name],
    )
