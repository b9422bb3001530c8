"""Bring one partition's scores up to date.

What is current is kept, what an interrupted run paid for is found again, the rest is scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.texts import indexed_documents
from attninf_assets.influence.document_score import DocumentScore, Text
from attninf_assets.influence.runtime.progress import OnProgress, ignore_progress
from attninf_assets.influence.selector import Selector
from attninf_assets.scores.staging import STAGED_SCORES, StagedScores
from attninf_assets.store.filesystems import StorageOptions
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

if TYPE_CHECKING:
    from attninf_assets.influence.engine import Engine

STAGE_EVERY = 30.0  # seconds of scoring that a killed run may lose, plus one chunk
_SAME_TEXT = ["doc_id", "text_sha256"]


@dataclass(frozen=True)
class PartitionScores:
    """A partition's complete scores under one selector, and how they came about."""

    table: pa.Table  # the partition's rows as they now stand, in the columns of STAGED_SCORES: one selector, one shard
    n_reused: int  # documents whose stored score was current
    n_resumed: int  # documents an interrupted run had scored
    n_scored: int
    tokens_scored: int
    seconds: float  # from the first look at the partition to its commit
    device: str | None  # what scored; None where nothing had to be
    version: int | None  # Delta version written; None where nothing had to be

    @property
    def was_current(self) -> bool:
        return self.version is None


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
    readers see the old rows until one commit replaces them. What the run cost is then added to the table
    `scoring_runs`. Raises `ValueError` where the shard is not indexed or its source changed since.
    """
    started = time.monotonic()
    where = {"domain": shard.domain, "shard": shard.name}
    n_documents = lake.count("documents", where=where)
    if not n_documents and not lake.count("quarantine", where=where):
        raise ValueError(f"{shard.key} is not indexed: materialize raw_corpus for it first")
    seen = lake.version("scores")
    by_selector = pc.field("selector_fingerprint") == selector.fingerprint
    stored = lake.read("scores", columns=STAGED_SCORES.names, where=where, only=by_selector, version=seen)
    n_stored = lake.count("scores", where=where, version=seen)
    staging = StagedScores(lake.root, selector.fingerprint, shard.domain, shard.name)
    if len(stored) == n_stored == n_documents:  # in a tenth of the memory that a join takes
        indexed = _row_hashes(lake.batches("documents", columns=_SAME_TEXT, where=where))
        if np.array_equal(_row_hashes(stored.select(_SAME_TEXT).to_batches()), indexed):
            staging.clear()
            return _nothing_to_do(stored)

    index = _frame(lake.read("documents", columns=_SAME_TEXT, where=where))
    current = _frame(stored).join(index, on=_SAME_TEXT, how="semi")
    needed = index.join(current, on=_SAME_TEXT, how="anti")
    resumed = _frame(staging.read()).join(needed, on=_SAME_TEXT, how="semi")
    missing = needed.join(resumed, on=_SAME_TEXT, how="anti")
    scored, device = pl.DataFrame(schema=resumed.schema), None
    if len(missing):
        engine = load()
        device = str(engine.model.device)
        documents = lake.read("documents", where=where)
        chunks = _score(
            engine, selector, shard, documents, missing, storage_options=storage_options, on_progress=on_progress
        )
        scored = pl.concat([scored, *_staged(chunks, staging, every=stage_every)])

    rows = index.join(pl.concat([current, resumed, scored]), on=_SAME_TEXT, how="left", maintain_order="left")
    assert not rows["n_tokens"].has_nulls(), "every indexed document has a score row"
    table = rows.select(STAGED_SCORES.names).to_arrow().cast(STAGED_SCORES)
    version = lake.replace("scores", _whole_rows(table, shard, selector), where=where)
    result = PartitionScores(
        table=table,
        n_reused=len(current),
        n_resumed=len(resumed),
        n_scored=len(scored),
        tokens_scored=int(scored["n_tokens"].sum()),
        seconds=time.monotonic() - started,
        device=device,
        version=version,
    )
    lake.append("scoring_runs", _run_row(result, shard, selector), writer=shard.key, number=version)
    staging.clear()
    return result


def _row_hashes(batches: Iterable[pa.RecordBatch]) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each row, sorted: equal for equal rows in any order, and hardly ever else."""
    hashes = [_frame(batch).hash_rows().to_numpy() for batch in batches]
    return np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))


def _nothing_to_do(scores: pa.Table) -> PartitionScores:
    return PartitionScores(scores, len(scores), 0, 0, 0, 0.0, None, None)


def _whole_rows(table: pa.Table, shard: Shard, selector: Selector) -> pa.Table:
    constants = {"domain": shard.domain, "shard": shard.name, "selector_fingerprint": selector.fingerprint}
    for name, value in constants.items():
        table = table.append_column(name, pa.repeat(pa.scalar(value), len(table)))
    return table.select(TABLES["scores"].names).cast(TABLES["scores"])


def _run_row(result: PartitionScores, shard: Shard, selector: Selector) -> pa.Table:
    row = {
        "domain": shard.domain,
        "shard": shard.name,
        "selector_fingerprint": selector.fingerprint,
        "n_scored": result.n_scored,
        "n_resumed": result.n_resumed,
        "n_reused": result.n_reused,
        "tokens_scored": result.tokens_scored,
        "seconds": result.seconds,
        "device": result.device,
        "scores_version": result.version,
        "committed_at": datetime.now(UTC),
    }
    return pa.Table.from_pylist([row], schema=TABLES["scoring_runs"])


def _score(
    engine: Engine,
    selector: Selector,
    shard: Shard,
    documents: pa.Table,
    missing: pl.DataFrame,
    *,
    storage_options: StorageOptions,
    on_progress: OnProgress,
) -> Iterator[pl.DataFrame]:
    """Scores of the missing documents, chunk by chunk, in the columns that are staged."""
    digests = dict(missing.select(_SAME_TEXT).iter_rows())
    n_bytes = _frame(documents.select([*_SAME_TEXT, "n_bytes"])).join(missing, on=_SAME_TEXT, how="semi")["n_bytes"]
    texts = (
        Text(document.doc_id, document.text)
        for document in indexed_documents(shard, documents, only=digests.keys(), storage_options=storage_options)
    )
    for chunk in engine.score(selector, texts, n_bytes=int(n_bytes.sum()), on_progress=on_progress):
        yield _staged_rows(chunk, digests)


def _staged(chunks: Iterator[pl.DataFrame], staging: StagedScores, *, every: float) -> Iterator[pl.DataFrame]:
    """The same chunks, stored as soon as `every` seconds went by since the last were."""
    held: list[pl.DataFrame] = []
    since = time.monotonic()
    try:
        for chunk in chunks:
            held.append(chunk)
            if time.monotonic() - since >= every:
                staging.add(pl.concat(held).to_arrow())
                held, since = [], time.monotonic()
            yield chunk
    except BaseException:
        if held:
            staging.add(pl.concat(held).to_arrow())
        raise


def _staged_rows(chunk: list[DocumentScore], digests: Mapping[str, str]) -> pl.DataFrame:
    now = datetime.now(UTC)
    rows = [(s.doc_id, digests[s.doc_id], s.n_tokens, s.loss_base, s.loss_reference, s.score, now) for s in chunk]
    columns = list(zip(*rows, strict=True))
    return _frame(
        pa.table([pa.array(c, type=f.type) for c, f in zip(columns, STAGED_SCORES, strict=True)], schema=STAGED_SCORES)
    )


def _frame(table: pa.Table | pa.RecordBatch) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
