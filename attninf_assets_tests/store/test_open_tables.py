"""Tables kept open: whatever happens to a table in storage, a kept handle shows what a new one does."""

import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from attninf_assets.store import open_tables
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import scores_of

_SHARDS = st.sampled_from("abc")
Rows = Mapping[str, tuple[int, str]]  # by shard: how many rows, and their mark


@contextmanager
def another_process() -> Iterator[None]:
    """What another process would do: nothing that this one keeps is there."""
    with pytest.MonkeyPatch.context() as here:
        here.setattr(open_tables, "_handles", OrderedDict())
        here.setattr(open_tables, "_snapshots", OrderedDict())
        yield


def _rows(table: pa.Table) -> Rows:
    """What is in a table of scores, whose rows are told apart by how many there are of a shard and by their mark."""
    shards = table.group_by("shard").aggregate([("n_tokens", "count"), ("selector_fingerprint", "count_distinct")])
    assert set(shards["selector_fingerprint_count_distinct"].to_pylist()) <= {1}, "rows of two commits are mixed"
    marks = dict(zip(table["shard"].to_pylist(), table["selector_fingerprint"].to_pylist(), strict=True))
    counts = zip(shards["shard"].to_pylist(), shards["n_tokens_count"].to_pylist(), strict=True)
    return {shard: (count, marks[shard]) for shard, count in counts}


@dataclass
class _Table:
    """What a table should hold, now and at each version."""

    rows: Rows = field(default_factory=dict)
    versions: dict[int, Rows] = field(default_factory=dict)
    oldest: int = 0  # version that can be read

    def copy(self) -> "_Table":
        return _Table(dict(self.rows), dict(self.versions), self.oldest)


class KeptTables(RuleBasedStateMachine):
    """One table, read and written here and elsewhere, deleted, exchanged, cleaned up."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="attninf-handles-"))
        self.lake = Lake(Root.at(self.directory / "root"))
        self.path = Path(self.lake.root.table_uri("scores"))
        self.table: _Table | None = None
        self.aside: _Table | None = None
        self.n_written = 0

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @initialize()
    def begin(self) -> None:
        self.written_here("a", 1)

    @rule(shard=_SHARDS, n=st.integers(0, 2))
    def written_here(self, shard: str, n: int) -> None:
        self.n_written += 1
        mark = f"{self.n_written}"
        version = Lake(self.lake.root).replace(
            "scores", scores_of("web", shard, n, mark=mark), where={"domain": "web", "shard": shard}
        )
        self.table = self.table or _Table(versions={0: {}})
        rows = {name: held for name, held in self.table.rows.items() if name != shard}
        self.table.rows = rows | ({shard: (n, mark)} if n else {})
        self.table.versions[version] = self.table.rows

    @rule(shard=_SHARDS, n=st.integers(0, 2), times=st.integers(1, 3))
    def written_elsewhere(self, shard: str, n: int, times: int) -> None:
        with another_process():
            for _ in range(times):
                self.written_here(shard, n)

    @rule()
    def deleted(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.table = None

    @precondition(lambda self: self.table is not None)
    @rule()
    def copied_aside(self) -> None:
        shutil.rmtree(self.directory / "aside", ignore_errors=True)
        shutil.copytree(self.path, self.directory / "aside")
        self.aside = self.table.copy() if self.table else None

    @precondition(lambda self: self.aside is not None)
    @rule()
    def exchanged(self) -> None:
        if self.table is not None:
            self.path.rename(self.directory / "other")
        (self.directory / "aside").rename(self.path)
        if self.table is not None:
            (self.directory / "other").rename(self.directory / "aside")
        self.table, self.aside = self.aside, self.table

    @precondition(lambda self: self.table is not None)
    @rule(here=st.booleans())
    def compacted(self, here: bool) -> None:
        if here:
            self.lake.in_turn("scores", lambda table: table.optimize.compact(), to="compact")
        else:
            self._now().optimize.compact()
        self._same_rows_again()

    @precondition(lambda self: self.table is not None)
    @rule()
    def checkpointed(self) -> None:
        self._now().create_checkpoint()

    @precondition(lambda self: self.table is not None)
    @rule()
    def vacuumed(self) -> None:
        self._now().vacuum(0, dry_run=False, enforce_retention_duration=False, full=True)
        self._same_rows_again()
        assert self.table is not None
        self.table.oldest = max(self.table.versions)

    @precondition(lambda self: self.table is not None)
    @rule()
    def log_cleaned_up(self) -> None:
        table = self._now()
        table.create_checkpoint()
        for entry in (self.path / "_delta_log").iterdir():
            os.utime(entry, (0, 0))
        table.cleanup_metadata()
        for entry in (self.path / "_delta_log").iterdir():
            os.utime(entry)  # what is left did not expire: a later commit would clean it up, too
        assert self.table is not None
        self.table.oldest = table.version()

    @invariant()
    def a_kept_handle_shows_what_is_there(self) -> None:
        expected = self.table.rows if self.table else {}
        assert _rows(self.lake.read("scores")) == expected
        assert self.lake.exists("scores") == (self.table is not None)
        assert self.lake.files("scores") == (sorted(self._now().file_uris()) if self.table else [])
        for shard in "ab":
            found = _rows(self.lake.read("scores", where={"domain": "web", "shard": shard}))
            assert found == {name: held for name, held in expected.items() if name == shard}

    @invariant()
    def every_version_is_the_one_of_this_table(self) -> None:
        if self.table is None:
            with pytest.raises(ValueError, match="there is no version 1"):
                self.lake.read("scores", version=1)
            return
        for version, rows in self.table.versions.items():
            if version >= self.table.oldest:
                assert _rows(self.lake.read("scores", version=version)) == rows
        with pytest.raises(ValueError, match="there is no version"):
            self.lake.read("scores", version=max(self.table.versions) + 1)

    def _now(self) -> DeltaTable:
        return DeltaTable(self.path)

    def _same_rows_again(self) -> None:
        assert self.table is not None
        for version in range(max(self.table.versions) + 1, self._now().version() + 1):
            self.table.versions[version] = self.table.rows


TestKeptTables = KeptTables.TestCase
TestKeptTables.settings = settings(max_examples=25, stateful_step_count=14, deadline=None)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """The versions for which a table was opened anew, one for each opening."""
    opened: list[int | None] = []

    class Counted(DeltaTable):
        def __init__(self, uri: str, version: int | None = None, storage_options: dict[str, str] | None = None) -> None:
            opened.append(version)
            super().__init__(uri, version, storage_options)

    monkeypatch.setattr(open_tables, "DeltaTable", Counted)
    return opened


def test_a_log_is_read_as_a_whole_once(root: Root, counted: list[int | None]) -> None:
    where = {"domain": "web", "shard": "a"}
    for mark in "fg":
        Lake(root).replace("scores", scores_of("web", "a", 3, mark=mark), where=where)
    with another_process():
        Lake(root).replace("scores", scores_of("web", "b", 3), where={"domain": "web", "shard": "b"})
    counted.clear()
    for _ in range(3):
        lake = Lake(root)
        assert (len(lake.read("scores")), lake.count("scores", where=where), len(lake.files("scores"))) == (6, 3, 2)
        assert set(lake.read("scores", version=1)["selector_fingerprint"].to_pylist()) == {"f"}
        lake.replace("scores", scores_of("web", "a", 3), where=where)
    assert counted in ([], [1])  # version 1 was current when this process wrote it, or is opened once


def test_with_other_credentials_a_table_is_opened_anew(s3_root: Root, counted: list[int | None]) -> None:
    lake = Lake(s3_root)
    lake.replace("scores", scores_of("web", "a", 3))
    assert len(lake.read("scores")) == 3
    intruder = Lake(Root.at(s3_root.uri, {**s3_root.storage_options, "AWS_SECRET_ACCESS_KEY": "a-guessed-secret"}))
    for attempt in (lambda: intruder.version("scores"), lambda: intruder.read("scores", version=1)):
        with pytest.raises(OSError, match=r"privileges|ACCESS_DENIED|SIGNATURE|AccessDenied"):
            attempt()
    assert len(lake.read("scores")) == 3
    counted.clear()
    same_key = {**s3_root.storage_options, "AWS_SESSION_TOKEN": ""}
    assert len(Lake(Root.at(s3_root.uri, same_key)).read("scores")) == 3
    assert len(counted) == 1


def test_only_so_many_tables_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_tables, "_MOST", 2)
    lakes = [Lake(Root.at(tmp_path / name)) for name in "abcd"]
    with another_process():
        for lake in lakes:
            lake.replace("scores", scores_of("web", "a", 1))
        assert [lake.version("scores") for lake in lakes] == [1, 1, 1, 1]
        assert len(open_tables._handles) == len(open_tables._snapshots) == 2


def test_threads_that_read_and_write_one_table_see_whole_versions(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    Lake(root).replace("scores", scores_of("web", "a", 1))
    finished = threading.Event()

    def write(domain: str) -> None:
        for number in range(8):
            pair = pa.concat_tables([scores_of(domain, shard, 2, mark=f"{number}") for shard in "ab"])
            Lake(root).replace("scores", pair, where={"domain": domain})

    def read() -> None:
        versions = [0]
        while not finished.is_set():
            lake = Lake(root)
            for domain in "xy":
                marks = lake.read("scores", columns=["selector_fingerprint"], where={"domain": domain})
                assert len(marks) in (0, 4)
                assert len(set(marks["selector_fingerprint"].to_pylist())) <= 1
            versions.append(lake.version("scores") or 0)
        assert versions == sorted(versions)

    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write, domain) for domain in "xy"]
        readers = [threads.submit(read) for _ in range(2)]
        wait(writers)
        finished.set()
        for thread in [*writers, *readers]:
            thread.result()
    assert Lake(root).count("scores") == 9
