"""Bring one partition's scores up to date.

What is current is kept, what an interrupted run paid for is found again, the rest is scored.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa

from attninf_assets.corpus.schema import Shard
from attninf_assets.corpus.texts import indexed_documents
from attninf_assets.influence.engine import Engine
from attninf_assets.influence.progress import OnProgress, ignore_progress
from attninf_assets.influence.scoring import DocumentScore, Text
from attninf_assets.influence.selector import Selector
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.staging import STAGED_SCORES, StagedScores
from attninf_assets.store.tables import Lake

STAGE_EVERY = 30.0  # seconds of scoring that a killed run may lose, plus one chunk
_SAME_TEXT = ["doc_id", "text_sha256"]


@dataclass(frozen=True)
class PartitionScores:
    """A partition's complete scores under one selector, and how they came about."""

    table: pa.Table  # the `scores` rows as they now stand
    n_reused: int  # documents whose stored score was current
    n_resumed: int  # documents an interrupted run had scored
    n_scored: int
    tokens_scored: int
    seconds: float  # spent scoring
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
    storage_options: Mapping[str, str],
    on_progress: OnProgress = ignore_progress,
) -> PartitionScores:
    """Score the documents of an indexed shard that have no current score, and commit the partition whole.

    A score is current if its selector fingerprint and the document's text are. `load` is called only where something
    has to be scored. Finished chunks are staged, so a killed run continues after them; readers see the old rows until
    one commit replaces them. Raises `ValueError` where the shard is not indexed or its source changed since.
    """
    started = time.monotonic()
    where = {"domain": shard.domain, "shard": shard.name}
    documents = lake.read("documents", where=where)
    if not documents.num_rows and not lake.read("quarantine", where=where).num_rows:
        raise ValueError(f"{shard.key} is not indexed: materialize raw_corpus for it first")
    index = _frame(documents).select(*_SAME_TEXT, "n_bytes")
    stored = _frame(lake.read("scores", where=where))
    current = stored.filter(pl.col("selector_fingerprint") == selector.fingerprint).join(
        index, on=_SAME_TEXT, how="semi"
    )
    staging = StagedScores(lake.root, selector.fingerprint, shard.domain, shard.name)
    needed = index.join(current, on=_SAME_TEXT, how="anti")
    resumed = _frame(staging.read()).join(needed, on=_SAME_TEXT, how="semi")
    missing = needed.join(resumed, on=_SAME_TEXT, how="anti")

    scored = pl.DataFrame(schema=resumed.schema)
    if len(missing):
        engine = load()
        chunks = _score(
            engine, selector, shard, documents, missing, storage_options=storage_options, on_progress=on_progress
        )
        scored = pl.concat([scored, *_staged(chunks, staging)])
    if len(current) == len(stored) == len(index):
        return PartitionScores(stored.to_arrow().cast(TABLES["scores"]), len(current), 0, 0, 0, 0.0, None)

    fresh = pl.concat([resumed, scored]).with_columns(
        domain=pl.lit(shard.domain), shard=pl.lit(shard.name), selector_fingerprint=pl.lit(selector.fingerprint)
    )
    columns = TABLES["scores"].names
    rows = index.select(_SAME_TEXT).join(
        pl.concat([current.select(columns), fresh.select(columns)]), on=_SAME_TEXT, how="left", maintain_order="left"
    )
    assert not rows["n_tokens"].has_nulls(), "every indexed document has a score row"
    table = rows.select(columns).to_arrow().cast(TABLES["scores"])
    version = lake.replace("scores", table, where=where)
    staging.clear()
    return PartitionScores(
        table=table,
        n_reused=len(current),
        n_resumed=len(resumed),
        n_scored=len(scored),
        tokens_scored=int(scored["n_tokens"].sum()),
        seconds=time.monotonic() - started,
        version=version,
    )


def _score(
    engine: Engine,
    selector: Selector,
    shard: Shard,
    documents: pa.Table,
    missing: pl.DataFrame,
    *,
    storage_options: Mapping[str, str],
    on_progress: OnProgress,
) -> Iterator[pl.DataFrame]:
    """Scores of the missing documents, chunk by chunk, in the columns that are staged."""
    digests = dict(missing.select(_SAME_TEXT).iter_rows())
    texts = (
        Text(document.doc_id, document.text)
        for document in indexed_documents(shard, documents, only=digests.keys(), storage_options=storage_options)
    )
    for chunk in engine.score(selector, texts, n_bytes=int(missing["n_bytes"].sum()), on_progress=on_progress):
        yield _staged_rows(chunk, digests)


def _staged(chunks: Iterator[pl.DataFrame], staging: StagedScores) -> Iterator[pl.DataFrame]:
    """The same chunks, each stored before the run goes on for more than `STAGE_EVERY` seconds."""
    held: list[pl.DataFrame] = []
    since = time.monotonic()
    try:
        for chunk in chunks:
            held.append(chunk)
            if time.monotonic() - since >= STAGE_EVERY:
                staging.add(pl.concat(held).to_arrow())
                held, since = [], time.monotonic()
            yield chunk
    except BaseException:
        if held:
            staging.add(pl.concat(held).to_arrow())
        raise


def _staged_rows(chunk: list[DocumentScore], digests: Mapping[str, str]) -> pl.DataFrame:
    now = datetime.now(UTC)
    rows = [(s.key, digests[s.key], s.n_tokens, s.loss_base, s.loss_reference, s.score, now) for s in chunk]
    columns = list(zip(*rows, strict=True))
    return _frame(
        pa.table([pa.array(c, type=f.type) for c, f in zip(columns, STAGED_SCORES, strict=True)], schema=STAGED_SCORES)
    )


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
