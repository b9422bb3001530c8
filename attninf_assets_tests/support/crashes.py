"""A scoring run in a process of its own that is killed at a chosen moment, run again, and looked at closely.

Every run replaces the rows of an older selector, stages every chunk, and keeps a journal of the chunks it begins and
of the documents it scores.
"""

import json
import multiprocessing as mp
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.compute as pc
import torch

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.indexing import index_shard
from attninf_assets.influence import scoring
from attninf_assets.influence.document_score import DocumentScore, Text
from attninf_assets.influence.engine import Engine
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.runtime.progress import OnProgress, ignore_progress
from attninf_assets.influence.runtime.token_budget import TokenBudget
from attninf_assets.influence.selector import Selector
from attninf_assets.scores.staging import StagedScores
from attninf_assets.scores.update import PartitionScores, update_partition_scores
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.planted_model import PLANTED, planted_model
from attninf_assets_tests.support.processes import FORKED
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer

__all__ = [
    "N_DOCUMENTS",
    "SELECTOR",
    "JournalledEngine",
    "Outcome",
    "ScoringRuns",
    "Together",
    "indexed_shard",
    "journalled_engine",
    "killed_after_its_commit",
    "rows_of",
]

N_DOCUMENTS = 240
SELECTOR = Selector(
    model_digest="planted",
    tokenizer_digest="tiny",
    heads=(PLANTED,),
    mask="uniform",
    max_tokens=64,
    start_token="bos",
    numeric_class="float32",
)
_OLD = "an older selector"
_PATIENCE = 120  # seconds for a run that is not killed


def _nothing(_: object) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class JournalledEngine(Engine):
    """An engine that writes down, past any kill, each chunk it begins and each that it has scored."""

    journal: Path
    on_chunk: Callable[[list[DocumentScore]], None] = _nothing  # called before a chunk's scores are handed on

    def score(
        self, selector: Selector, texts: Iterable[Text], *, n_bytes: int, on_progress: OnProgress = ignore_progress
    ) -> Iterator[list[DocumentScore]]:
        chunks = super().score(selector, texts, n_bytes=n_bytes, on_progress=on_progress)
        while True:
            self._write({"begun": True})
            chunk = next(chunks, None)
            if chunk is None:
                self._write({"ended": True})
                return
            self._write({"scored": [score.doc_id for score in chunk]})
            self.on_chunk(chunk)
            yield chunk

    def _write(self, entry: dict[str, object]) -> None:
        with self.journal.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")


def journalled_engine(journal: Path) -> JournalledEngine:
    """The planted model, in chunks of about a dozen sentences, all alike, so that they can be counted."""
    torch.set_num_threads(1)
    scoring._chunk_sizes = lambda token_budget: repeat(scoring._BUDGETS_PER_CHUNK * token_budget.tokens)
    return JournalledEngine(
        model=StreamedModel(planted_model()),
        tokenizer=tiny_text_tokenizer(),
        start_token=1,
        start_token_name="bos",
        max_tokens=64,
        token_budget=TokenBudget(16),
        journal=journal,
    )


def indexed_shard(lake: Lake, directory: Path, name: str, *, n_documents: int = N_DOCUMENTS) -> Shard:
    """A shard of as many sentences, indexed, with scores by an older selector."""
    directory.mkdir(exist_ok=True)
    source = directory / "source.jsonl"
    texts = [f"{one} {two}" for one in sentences() for two in sentences()[:10]][:n_documents]
    source.write_text("".join(json.dumps({"id": f"d{n:04}", "text": text}) + "\n" for n, text in enumerate(texts)))
    shard = Shard("web", name, str(source), "jsonl", "text", "id")
    documents = index_shard(shard).documents
    where = {"domain": shard.domain, "shard": shard.name}
    lake.replace("documents", documents, where=where)
    old = pl.DataFrame(pl.from_arrow(documents)).with_columns(
        n_tokens=pl.lit(1, pl.Int64),
        loss_base=pl.lit(1.0),
        loss_reference=pl.lit(2.0),
        score=pl.lit(1.0),
        selector_fingerprint=pl.lit(_OLD),
        scored_at=pl.lit(0).cast(pl.Datetime("us", "UTC")),
        window_scores=pl.lit(None).cast(pl.List(pl.Float64)),
    )
    lake.replace("scores", old.select(TABLES["scores"].names).to_arrow().cast(TABLES["scores"]), where=where)
    return shard


def rows_of(lake: Lake, shard: Shard) -> pl.DataFrame:
    """The shard's rows by doc_id, without what may differ from one run to the next."""
    rows = pl.from_arrow(lake.read("scores", where={"domain": shard.domain, "shard": shard.name}))
    assert isinstance(rows, pl.DataFrame)
    rows = rows.with_columns(pl.col("window_scores").list.eval(pl.element().round(9)))
    return rows.sort("doc_id").drop("scored_at", "shard").with_columns(pl.col(pl.Float64).round(9))


def update(root: Root, shard: Shard, journal: Path) -> PartitionScores:
    """Bring the shard's scores up to date, staging every chunk."""
    return update_partition_scores(
        Lake(root), shard, SELECTOR, load=lambda: journalled_engine(journal), storage_options={}, stage_every=0
    )


def killed_after_its_commit(root: Root, shard: Shard, journal: Path) -> None:
    """Update the shard in a process that is killed as soon as its scores are committed."""
    process = FORKED.Process(target=_commit_and_die, args=(root, shard, journal))
    process.start()
    process.join(_PATIENCE)
    assert process.exitcode == -signal.SIGKILL


@dataclass(frozen=True)
class Outcome:
    """What a kill and the run after it left behind."""

    reached: str  # how far the killed run had come
    whole_between: bool  # between the two, readers saw all old rows or all new ones
    right: bool  # in the end, exactly the rows of a run that was never disturbed, and one row that says what it cost
    chunks_repeated: int  # chunks begun beyond those that an undisturbed run takes
    documents_repeated: int  # documents scored twice
    largest_chunk: int  # documents


@dataclass(frozen=True)
class Together:
    """What two runs over one shard at once left behind."""

    succeeded: bool  # both
    right: bool  # in the end, exactly the rows of a run that was never disturbed, and nothing staged
    most_often: int  # how many times a document was scored at most


class ScoringRuns:
    """Runs over shards of one lake; the first, undisturbed one says what is right and how long it takes."""

    def __init__(self, root: Root, directory: Path) -> None:
        self.root, self.lake, self.directory = root, Lake(root), directory
        shard = indexed_shard(self.lake, directory, "undisturbed")
        self.old = rows_of(self.lake, shard)
        commit = f"tables/scores/_delta_log/{(self.lake.version('scores') or 0) + 1:020}.json"
        process = self.start(shard)
        _wait_until(lambda: self._written(shard) > 0)
        begin = time.perf_counter()
        _wait_until(lambda: self.root.exists(commit))
        self.seconds_of_commit = time.perf_counter() - begin  # from its first file to where all is to be seen
        process.join(_PATIENCE)
        assert process.exitcode == 0
        self.right = rows_of(self.lake, shard)
        self.n_chunks, _ = self._journal(shard)
        assert set(self.right["selector_fingerprint"]) == {SELECTOR.fingerprint}

    def start(self, shard: Shard) -> "mp.process.BaseProcess":
        """A process that updates the shard; returns when it is about to begin."""
        ready = FORKED.Event()
        process = FORKED.Process(target=_run, args=(self.root, shard, self._path(shard), ready))
        process.start()
        assert ready.wait(_PATIENCE)
        return process

    def points(self, n: int) -> list[tuple[int | None, float]]:
        """Moments spread over a run, a third of them over its commit: `begun` and `after` of `kill_and_run_again`."""
        of_commit = n // 3
        of_chunks = n - of_commit
        chunks = [(i * (self.n_chunks + 1) // of_chunks, 0.005 * (i % 4)) for i in range(of_chunks)]
        return [*chunks, *((None, 1.2 * i / of_commit * self.seconds_of_commit) for i in range(of_commit))]

    def kill_and_run_again(self, name: str, *, begun: int | None, after: float) -> Outcome:
        """Kill a run over a new shard, then run it to the end.

        It is killed `after` seconds from where it begins its chunk number `begun`; None is where its commit writes the
        first file.
        """
        shard = indexed_shard(self.lake, self.directory, name)
        process = self.start(shard)
        if begun is None:
            _wait_until(lambda: self._written(shard) > 0 or not process.is_alive())
        else:
            _wait_until(lambda: self._begun(shard) >= begun or not process.is_alive())
        time.sleep(after)
        assert process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        between = rows_of(self.lake, shard)
        reached = self._reached(shard, between, finished=process.exitcode == 0)
        again = self.start(shard)
        again.join(_PATIENCE)
        n_begun, scored = self._journal(shard)
        times = Counter(doc_id for chunk in scored for doc_id in chunk)
        return Outcome(
            reached=reached,
            whole_between=between.equals(self.old) or between.equals(self.right),
            right=again.exitcode == 0
            and rows_of(self.lake, shard).equals(self.right)
            and not self._staged(shard)
            and len(self.lake.read("scoring_runs", only=pc.field("shard") == name)) == 1,
            chunks_repeated=n_begun - self.n_chunks,
            documents_repeated=sum(count - 1 for count in times.values()),
            largest_chunk=max(map(len, scored)),
        )

    def run_two(self, name: str, *, begun: int) -> Together:
        """Two runs over a new shard; the second starts when the first begins its chunk number `begun`."""
        shard = indexed_shard(self.lake, self.directory, name)
        processes = [self.start(shard)]
        _wait_until(lambda: self._begun(shard) >= begun or not processes[0].is_alive())
        processes.append(self.start(shard))
        for process in processes:
            process.join(_PATIENCE)
        _, scored = self._journal(shard)
        return Together(
            succeeded=[process.exitcode for process in processes] == [0, 0],
            right=rows_of(self.lake, shard).equals(self.right) and not self._staged(shard),
            most_often=max(Counter(doc_id for chunk in scored for doc_id in chunk).values()),
        )

    def _reached(self, shard: Shard, rows: pl.DataFrame, *, finished: bool) -> str:
        if finished:
            return "the end"
        if rows.equals(self.right):
            return "the commit"
        if self._written(shard):
            return "the first file of the commit, nothing of it to be seen"
        staged = self._staged(shard)
        return f"{staged} of {N_DOCUMENTS} documents" if staged else "no chunk"

    def _staged(self, shard: Shard) -> int:
        return len(StagedScores(self.root, SELECTOR.fingerprint, shard.domain, shard.name).read())

    def _written(self, shard: Shard) -> int:
        """Files beside the one with the old rows, whole or half written."""
        return len(self.root.list(f"tables/scores/domain={shard.domain}/shard={shard.name}")) - 1

    def _path(self, shard: Shard) -> Path:
        return self.directory / f"{shard.name}.journal"

    def _begun(self, shard: Shard) -> int:
        path = self._path(shard)
        return path.read_text().count('"begun"') if path.exists() else 0

    def _journal(self, shard: Shard) -> tuple[int, list[list[str]]]:
        """How many chunks were begun, and the documents of each that was scored, in all runs over the shard."""
        path = self._path(shard)
        entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        scored = [entry["scored"] for entry in entries if "scored" in entry]
        finished = sum(1 for entry in entries if "ended" in entry)
        return sum(1 for entry in entries if "begun" in entry) - finished, scored


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0001)


def _commit_and_die(root: Root, shard: Shard, journal: Path) -> None:
    class _Dying(Lake):
        def replace(self, *arguments: Any, **options: Any) -> int:
            super().replace(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("it is dead")

    update_partition_scores(
        _Dying(root), shard, SELECTOR, load=lambda: journalled_engine(journal), storage_options={}, stage_every=0
    )


def _run(root: Root, shard: Shard, journal: Path, ready: "mp.synchronize.Event") -> None:
    ready.set()
    update(root, shard, journal)
