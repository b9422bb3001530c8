"""An index states what the files hold now: after one pass over what changed, in any order, whatever was killed."""

import hashlib
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.corpus.config import DomainSource, Glob
from attninf_assets.corpus.discovery import Corpus
from attninf_assets.corpus.documents import LandedShard
from attninf_assets.corpus.stored_index import index_and_store, index_waiting
from attninf_assets.store.retirement import retire_shard
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

BROKEN = None  # what a file holds that cannot be read


class _Killed(BaseException):
    pass


@dataclass
class Domain:
    """A folder of files, the index of them, and which of them changed since they were indexed."""

    folder: Path
    lake: Lake
    files: dict[str, list[str] | None] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    n_landed: int = 0

    def land(self, name: str, ids: list[str] | None) -> None:
        """Put a file there, another one than was there before, even if it holds the same."""
        self.n_landed += 1
        lines = [json.dumps({"id": one, "text": f"text {one}"}) + "\n" for one in ids or []]
        self.path(name).write_text("".join(lines).rstrip("\n") + " " * self.n_landed + "\n")
        self.files[name] = ids or BROKEN
        self.changed.add(name)

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def remove(self, name: str, *, retire: bool) -> None:
        self.path(name).unlink()
        del self.files[name]
        self.changed.discard(name)
        if retire:
            self.retire(name)

    def retire(self, name: str) -> None:
        retire_shard(self.lake, domain="web", shard=name)
        index_waiting(self.lake, f"web.{name}", find=self.find)

    def find(self, key: str) -> LandedShard:
        glob = Glob("*.jsonl", str(self.folder), ("*.jsonl",))
        source = DomainSource(files=(glob,), format="jsonl", id_column="id")
        return Corpus(_Config("corpus.yaml", {"web": source})).find(key)  # type: ignore[arg-type]

    def index(self, name: str) -> None:
        """What a run does; a file that cannot be read ends it as an error."""
        try:
            index_and_store(self.lake, self.find(f"web.{name}"))
        except ValueError:
            assert self.files[name] is BROKEN
        finally:
            if not isinstance(sys.exception(), _Killed):
                index_waiting(self.lake, f"web.{name}", find=self.find)
        self.changed.discard(name)

    def require_truth(self) -> None:
        """Every id of a readable file is indexed once; what is refused is refused for what is so."""
        documents = self.lake.read("documents").to_pylist()
        holders: dict[str, list[str]] = {}
        for row in documents:
            holders.setdefault(row["doc_id"], []).append(row["shard"])
        readable = {name: ids for name, ids in self.files.items() if ids is not None}
        wanted = {one for ids in readable.values() for one in ids}
        assert all(len(shards) == 1 for shards in holders.values()), holders
        assert wanted <= set(holders), sorted(wanted - set(holders))
        broken = set(self.files) - set(readable)
        assert not [one for one in wanted if holders[one][0] in broken]
        for name, ids in readable.items():
            rows = [row for row in documents if row["shard"] == name]
            assert {row["text_sha256"] for row in rows} == {_sha256(row["doc_id"]) for row in rows}
            refused = self.lake.read("quarantine", where={"domain": "web", "shard": name}).to_pylist()
            duplicates = [row for row in refused if row["held_by"] is not None]
            assert sorted(row["doc_id"] for row in [*rows, *duplicates]) == sorted(ids)
            assert all(holders[row["doc_id"]] == [row["held_by"]] != [name] for row in duplicates)
        for name in broken:
            (row,) = self.lake.read("quarantine", where={"domain": "web", "shard": name}).to_pylist()
            assert row["source_row"] is None
            assert str(self.path(name)) in row["reason"]


@dataclass(frozen=True)
class _Config:
    path: str
    domains: Mapping[str, DomainSource]


def _sha256(one: str) -> str:
    return hashlib.sha256(f"text {one}".encode()).hexdigest()


@contextmanager
def _killed_at(step: int | None) -> Iterator[None]:
    """The block's run dies before its `step`-th write to a table, or right after it where `step` is negative."""
    n = 0

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def write_or_die(*arguments: Any, **options: Any) -> Any:
            nonlocal n
            n += 1
            if n == step:
                raise _Killed
            result = write(*arguments, **options)
            if step is not None and n == -step:
                raise _Killed
            return result

        return write_or_die

    with pytest.MonkeyPatch.context() as patched:
        for name in ("replace", "take_out"):
            patched.setattr(Lake, name, dying(getattr(Lake, name)))
        with suppress(_Killed):
            yield


def _reshuffled(domain: Domain, ids: list[str], names: list[str]) -> None:
    for number, name in enumerate(names):
        domain.land(name, ids[number :: len(names)])


@pytest.mark.parametrize("where", ["local", "s3"])
def test_ids_shuffled_over_the_files_of_a_domain_are_all_indexed_in_one_pass(
    tmp_path: Path, where: str, request: pytest.FixtureRequest
) -> None:
    root = Root.at(tmp_path / "root") if where == "local" else request.getfixturevalue("s3_root")
    n, names = (100, [f"s{n}" for n in range(10)]) if where == "local" else (40, ["a", "b", "c"])
    domain, ids = Domain(tmp_path, Lake(root)), [str(number) for number in range(n)]
    rng = random.Random(0)
    for _ in range(2):
        rng.shuffle(ids)
        _reshuffled(domain, ids, names)
        for name in rng.sample(names, len(names)):
            domain.index(name)
        domain.require_truth()
        assert (domain.lake.count("documents"), domain.lake.count("quarantine")) == (n, 0)


def test_ids_that_move_into_files_of_new_names_are_indexed_there_though_the_old_are_not_retired(tmp_path: Path) -> None:
    domain, ids = Domain(tmp_path, Lake(Root.at(tmp_path / "root"))), [str(number) for number in range(12)]
    _reshuffled(domain, ids, ["a", "b", "c"])
    for name in "abc":
        domain.index(name)
    for name in "abc":
        domain.remove(name, retire=False)
    _reshuffled(domain, ids, ["x", "y"])
    for name in "xy":
        domain.index(name)
    domain.require_truth()
    assert {row["shard"] for row in domain.lake.read("documents").to_pylist()} == {"x", "y"}


@pytest.mark.parametrize("how", ["replaced", "retired", "broken"])
def test_what_was_refused_as_a_duplicate_is_indexed_once_the_other_is_gone(tmp_path: Path, how: str) -> None:
    domain = Domain(tmp_path, Lake(Root.at(tmp_path / "root")))
    domain.land("a", ["x", "y"])
    domain.land("b", ["x", "z"])
    for name in "ab":
        domain.index(name)
    domain.require_truth()
    assert [row["held_by"] for row in domain.lake.read("quarantine").to_pylist()] == ["a"]
    if how == "retired":
        domain.remove("a", retire=True)
    else:
        domain.land("a", ["y"] if how == "replaced" else BROKEN)
        domain.index("a")
    domain.require_truth()
    assert "x" in domain.lake.read("documents", where={"domain": "web", "shard": "b"})["doc_id"].to_pylist()


def test_refusals_of_an_older_version_are_looked_at_again(tmp_path: Path) -> None:
    domain = Domain(tmp_path, Lake(Root.at(tmp_path / "root")))
    domain.land("a", ["x"])
    domain.land("b", ["y"])
    for name in "ab":
        domain.index(name)
    where = {"domain": "web", "shard": "a"}
    reason = "doc_id 'x' is a duplicate of a document in another shard"
    refused = [{**where, "source_uri": str(domain.path("a")), "source_row": 0, "reason": reason}]
    domain.lake.replace("documents", TABLES["documents"].empty_table(), where=where)
    domain.lake.replace("quarantine", pa.Table.from_pylist(refused, schema=TABLES["quarantine"]), where=where)
    domain.index("b")
    domain.require_truth()


_NAMES, _IDS = st.sampled_from("abcd"), st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=4, unique=True)
_HAPPENINGS = st.one_of(
    st.tuples(st.just("land"), _NAMES, _IDS),
    st.tuples(st.just("land"), _NAMES, _IDS),
    st.tuples(st.just("break"), _NAMES, st.none()),
    st.tuples(st.just("remove"), _NAMES, st.booleans()),
)
_PASSES = st.lists(
    st.tuples(
        st.lists(_HAPPENINGS, min_size=1, max_size=4),
        st.permutations("abcd"),
        st.dictionaries(_NAMES, st.integers(-4, 4).filter(bool), max_size=2),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=20)
@given(passes=_PASSES)
def test_after_one_pass_over_what_changed_the_index_is_what_the_files_say(passes: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        domain = Domain(Path(directory), Lake(Root.at(Path(directory) / "root")))
        gone: set[str] = set()
        for happenings, order, kills in passes:
            for what, name, argument in happenings:
                if what == "remove" and name in domain.files:
                    domain.remove(name, retire=False)
                    gone.add(name)
                elif what != "remove":
                    domain.land(name, argument)
                    gone.discard(name)
            for name in order:
                if name in domain.changed:
                    with _killed_at(kills.get(name)):
                        domain.index(name)
            for name in order:  # runs that were killed are run again
                if name in domain.changed:
                    domain.index(name)
            domain.require_truth()
            for name in sorted(gone):
                domain.retire(name)
                domain.require_truth()
            gone.clear()


_RUN = """
import os, sys
from attninf_assets_tests.corpus.test_resharding import Domain
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from pathlib import Path
folder, name, step, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), 0
domain = Domain(folder, Lake(Root.at(folder / "root")))
def dying(write):
    def write_and_die(*arguments, **options):
        global n
        n += 1
        result = write(*arguments, **options)
        if n == step:
            os.kill(os.getpid(), 9)
        return result
    return write_and_die
Lake.replace, Lake.take_out = dying(Lake.replace), dying(Lake.take_out)
domain.files = {name: []}
domain.index(name)
"""


@pytest.mark.parametrize("step", [1, 2])
def test_a_run_that_was_killed_leaves_nothing_that_the_next_does_not_finish(tmp_path: Path, step: int) -> None:
    domain = Domain(tmp_path, Lake(Root.at(tmp_path / "root")))
    domain.land("a", ["x", "y"])
    domain.land("b", ["x", "z"])
    for name in "ab":
        domain.index(name)
    domain.land("a", ["z"])
    domain.land("b", ["x", "y"])
    run = [sys.executable, "-c", _RUN, str(tmp_path), "a", str(step)]
    assert subprocess.run(run, check=False).returncode == -9
    domain.index("b")
    domain.index("a")
    domain.require_truth()
