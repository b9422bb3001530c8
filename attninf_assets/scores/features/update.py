"""Bring one partition's features up to date: what is current is kept, the rest is computed from the texts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import Document, Shard
from attninf_assets.corpus.holders import is_indexed
from attninf_assets.corpus.texts import indexed_documents
from attninf_assets.scores.features.measures import FEATURES_VERSION, measured
from attninf_assets.scores.staleness import SAME_TEXT, current_rows
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

__all__ = ["ShardFeatures", "by_todays_definitions", "update_document_features"]

_BATCH_BYTES = 8 << 20  # of text that is measured at once, or one document


@dataclass(frozen=True)
class ShardFeatures:
    """A partition's complete features, and how they came about."""

    table: pa.Table  # the partition's rows of `document_features` as they now stand
    n_kept: int  # documents whose stored features were current
    n_computed: int
    bytes_computed: int
    seconds: float  # from the first look at the partition to the beginning of its commit
    version: int | None  # Delta version written; None where nothing had to be


def by_todays_definitions() -> pc.Expression:
    """Whether a row of `document_features` was computed by the definitions of `FEATURES_VERSION`."""
    return pc.field("features_version") == FEATURES_VERSION


def update_document_features(
    lake: Lake, shard: Shard, *, storage_options: StorageOptions = NO_OPTIONS
) -> ShardFeatures:
    """Compute the features of the shard's documents that have none that are current, and commit the partition whole.

    They are current if the text's sha256 and `FEATURES_VERSION` are. What `near_duplicates` found of a kept row stays
    with it; of a new row it is null until that is found again. Texts are held `_BATCH_BYTES` at a time. Raises
    `ValueError` where the shard is not indexed or its source changed since.
    """
    started = time.monotonic()
    where = {"domain": shard.domain, "shard": shard.name}
    documents = lake.read("documents", where=where)
    if not len(documents) and not is_indexed(lake, where):
        raise ValueError(f"{shard.key} is not indexed: materialize raw_corpus for it first")
    seen = lake.version("document_features")
    stored = lake.read("document_features", where=where, only=by_todays_definitions(), version=seen)
    index = documents.select(SAME_TEXT)
    kept_N = current_rows(index, stored)
    n_kept = int((kept_N >= 0).sum())
    if n_kept == len(index) == lake.count("document_features", where=where, version=seen):
        return ShardFeatures(stored, n_kept, 0, 0, time.monotonic() - started, None)
    missing = index.filter(pa.array(kept_N < 0))["doc_id"].to_pylist()
    texts = indexed_documents(shard, documents, only=set(missing), storage_options=storage_options)
    computed = pa.concat_tables([stored.slice(0, 0), *map(_rows, _batches(texts))])
    rows_N = np.where(kept_N >= 0, kept_N, len(stored) + current_rows(index, computed))
    table = pa.concat_tables([stored, computed]).take(pa.array(rows_N))
    seconds = time.monotonic() - started
    version = lake.replace("document_features", table, where=where)
    n_bytes = int(pc.sum(computed["n_bytes"]).as_py() or 0)
    return ShardFeatures(table, n_kept, len(computed), n_bytes, seconds, version)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    held = 0
    for document in documents:
        batch.append(document)
        held += document.n_bytes
        if held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _rows(documents: list[Document]) -> pa.Table:
    schema = TABLES["document_features"]
    table = measured([document.text for document in documents])
    for name in ("doc_id", "domain", "shard", "text_sha256"):
        table = table.append_column(name, pa.array([getattr(document, name) for document in documents]))
    table = table.append_column("features_version", pa.repeat(FEATURES_VERSION, len(table)))
    for name in ("duplicate_group", "near_duplicate_cluster"):
        table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table.select(schema.names).cast(schema)
