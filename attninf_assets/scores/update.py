"""Bring one partition's scores up to date.

What is current is kept, what an interrupted run paid for is found again, the rest is scored.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.holders import is_indexed
from attninf_assets.corpus.texts import indexed_documents
from attninf_assets.influence.document_score import DocumentScore, Text
from attninf_assets.influence.runtime.progress import OnProgress, ignore_progress
from attninf_assets.influence.selector import Selector
from attninf_assets.scores.runs import ScoringRun, complete_scoring_runs
from attninf_assets.scores.staging import STAGED_SCORES, StagedScores
from attninf_assets.scores.staleness import SAME_TEXT, are_of_the_same_texts, current_rows, made_by
from attninf_assets.store.durability import make_all_durable
from attninf_assets.store.filesystems import StorageOptions
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

if TYPE_CHECKING:
    from attninf_assets.influence.engine import Engine

STAGE_EVERY = 30.0  # seconds of scoring that a killed run may lose, plus one chunk
_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class PartitionScores:
    """A partition's complete scores under one selector, and how they came about."""

    table: pa.Table  # the partition's rows as they now stand, in the columns of STAGED_SCORES: one selector, one shard
    n_reused: int  # documents whose stored score was current
    n_resumed: int  # documents an interrupted run had scored
    n_scored: int
    tokens_scored: int
    seconds: float  # from the first look at the partition to the beginning of its commit
    device: str | None  # what scored; None where nothing had to be
    version: int | None  # Delta version written; None where nothing had to be

    @property
    def was_current(self) -> bool:
        return self.version is None

    @property
    def n_tokens(self) -> int:
        """Tokens of all the partition's documents."""
        return int(pc.sum(self.table["n_tokens"]).as_py() or 0)


def update_partition_scores(
    lake: Lake,
    shard: Shard,
    selector: Selector,
    *,
    load: Callable[[], Engine],
    storage_options: StorageOptions,
    on_progress: OnProgress = ignore_progress,
    stage_every: float = STAGE_EVERY,
) -> PartitionScores:
    """Score the documents of an indexed shard that have no current score, and commit the partition whole.

    A score is current if its selector fingerprint and the document's text are. `load` is called only where something
    has to be scored. Finished chunks are staged every `stage_every` seconds, so a killed run continues after them;
    readers see the old rows until one commit replaces them. What the run cost is noted in that commit and then added to
    the table `scoring_runs`, and so is what runs cost that were killed in between. Raises `ValueError` where the shard
    is not indexed or its source changed since.
    """
    started = time.monotonic()
    where = {"domain": shard.domain, "shard": shard.name}
    complete_scoring_runs(lake)
    indexed_at = lake.version("documents")
    n_documents = lake.count("documents", where=where, version=indexed_at)
    if not n_documents and not is_indexed(lake, where):
        raise ValueError(f"{shard.key} is not indexed: materialize raw_corpus for it first")
    seen = lake.version("scores")
    ours = made_by(selector.fingerprint)
    stored = lake.read("scores", columns=STAGED_SCORES.names, where=where, only=ours, version=seen)
    n_stored = lake.count("scores", where=where, version=seen)
    staging = StagedScores(lake.root, selector.fingerprint, shard.domain, shard.name)
    if len(stored) == n_stored == n_documents:  # told without holding the index
        indexed = lake.batches("documents", columns=SAME_TEXT, where=where, version=indexed_at)
        if are_of_the_same_texts(stored.select(SAME_TEXT).to_batches(), indexed):
            if staging.holds_any():  # of a run killed after its commit, which may not be on disk
                make_all_durable(lake.root)
            staging.clear()
            return _nothing_to_do(stored)

    index = lake.read("documents", columns=SAME_TEXT, where=where, version=indexed_at)
    current_N = current_rows(index, stored)
    staged = staging.read()
    resumed_N = np.where(current_N < 0, current_rows(index, staged), -1)
    missing = index.filter(pa.array((current_N < 0) & (resumed_N < 0)))
    scored, device = STAGED_SCORES.empty_table(), None
    if len(missing):
        engine = load()
        device = str(engine.model.device)
        documents = lake.read("documents", where=where, version=indexed_at)
        chunks = _score(
            engine, selector, shard, documents, missing, storage_options=storage_options, on_progress=on_progress
        )
        scored = pa.concat_tables([scored, *_staged(chunks, staging, every=stage_every)])

    table = _in_order(index, [(stored, current_N), (staged, resumed_N), (scored, current_rows(index, scored))])
    run = ScoringRun(
        **where,
        selector_fingerprint=selector.fingerprint,
        n_scored=len(scored),
        n_resumed=int((resumed_N >= 0).sum()),
        n_reused=int((current_N >= 0).sum()),
        tokens_scored=int(pc.sum(scored["n_tokens"]).as_py() or 0),
        seconds=time.monotonic() - started,
        device=device,
    )
    version = lake.replace("scores", _whole_rows(table, shard, selector), where=where, note=run.note())
    complete_scoring_runs(lake)
    staging.clear()
    return PartitionScores(
        table=table,
        n_reused=run.n_reused,
        n_resumed=run.n_resumed,
        n_scored=run.n_scored,
        tokens_scored=run.tokens_scored,
        seconds=run.seconds,
        device=device,
        version=version,
    )


def content_digest(table: pa.Table, *, selector_fingerprint: str) -> str:
    """A digest that changes with the documents' ids, their texts or the selector, and never otherwise.

    `table` holds a partition's scores by that selector, in any order.
    """
    digest = hashlib.sha256(selector_fingerprint.encode())
    texts = table.select(SAME_TEXT)
    by_id = pc.sort_indices(texts, [("doc_id", "ascending")])
    for begin in range(0, len(by_id), _ROWS_AT_ONCE):
        rows = texts.take(by_id.slice(begin, _ROWS_AT_ONCE)).combine_chunks()
        for chunk in pc.binary_join_element_wise("", *rows.columns, "\0").chunks:
            digest.update("".join(chunk.to_pylist()).encode())
    return digest.hexdigest()


def _in_order(index: pa.Table, found: list[tuple[pa.Table, npt.NDArray[np.int64]]]) -> pa.Table:
    """A score of every indexed document, in the index's order: each from the last table that has a row for it."""
    rows_N, begin = np.full(len(index), -1), 0
    for table, of_table_N in found:
        rows_N = np.where(of_table_N < 0, rows_N, begin + of_table_N)
        begin += len(table)
    assert (rows_N >= 0).all(), "every indexed document has a score row"
    return pa.concat_tables(table for table, _ in found).take(pa.array(rows_N))


def _nothing_to_do(scores: pa.Table) -> PartitionScores:
    return PartitionScores(scores, len(scores), 0, 0, 0, 0.0, None, None)


def _whole_rows(table: pa.Table, shard: Shard, selector: Selector) -> pa.Table:
    constants = {"domain": shard.domain, "shard": shard.name, "selector_fingerprint": selector.fingerprint}
    for name, value in constants.items():
        table = table.append_column(name, pa.repeat(pa.scalar(value), len(table)))
    return table.select(TABLES["scores"].names).cast(TABLES["scores"])


def _score(
    engine: Engine,
    selector: Selector,
    shard: Shard,
    documents: pa.Table,
    missing: pa.Table,
    *,
    storage_options: StorageOptions,
    on_progress: OnProgress,
) -> Iterator[pa.Table]:
    """Scores of the missing documents, chunk by chunk, in the columns that are staged."""
    digests = dict(zip(*(missing[column].to_pylist() for column in SAME_TEXT), strict=True))
    n_bytes = pc.sum(documents["n_bytes"].filter(pc.is_in(documents["doc_id"], value_set=missing["doc_id"]))).as_py()
    texts = (
        Text(document.doc_id, document.text)
        for document in indexed_documents(shard, documents, only=digests.keys(), storage_options=storage_options)
    )
    for chunk in engine.score(selector, texts, n_bytes=n_bytes, on_progress=on_progress):
        yield _staged_rows(chunk, digests)


def _staged(chunks: Iterator[pa.Table], staging: StagedScores, *, every: float) -> Iterator[pa.Table]:
    """The same chunks, stored as soon as `every` seconds went by since the last were."""
    held: list[pa.Table] = []
    since = time.monotonic()
    try:
        for chunk in chunks:
            held.append(chunk)
            if time.monotonic() - since >= every:
                staging.add(pa.concat_tables(held))
                held, since = [], time.monotonic()
            yield chunk
    except BaseException:
        if held:
            staging.add(pa.concat_tables(held))
        raise


def _staged_rows(chunk: list[DocumentScore], digests: Mapping[str, str]) -> pa.Table:
    now = datetime.now(UTC)
    rows = [
        (s.doc_id, digests[s.doc_id], s.n_tokens, s.loss_base, s.loss_reference, s.score, now, s.window_scores)
        for s in chunk
    ]
    columns = zip(zip(*rows, strict=True), STAGED_SCORES, strict=True)
    return pa.table([pa.array(values, type=field.type) for values, field in columns], schema=STAGED_SCORES)
