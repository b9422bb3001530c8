"""A doc_id has one shard in its domain, however many are indexed at the same time."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle, islice
from pathlib import Path
from threading import Barrier, Semaphore, local
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.corpus import stored_index
from attninf_assets.corpus.documents import LandedShard, Shard
from attninf_assets.corpus.holders import Holding
from attninf_assets.corpus.indexing import index_shard
from attninf_assets.corpus.stored_index import index_and_store
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake


def _shard(directory: Path, name: str, ids: list[str], *, domain: str = "web") -> LandedShard:
    source = directory / f"{domain}-{name}.jsonl"
    source.write_text("".join(json.dumps({"id": one, "text": f"text {one} in {name}"}) + "\n" for one in ids))
    status = source.stat()
    shard = Shard(domain, name, str(source), "jsonl", "text", "id")
    return LandedShard(shard, n_bytes=status.st_size, modified_ns=status.st_mtime_ns)


def _together(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Let `n` threads look for duplicates before any of them stores what it found."""
    looked, barrier, mine = stored_index.holding, Barrier(n), local()

    def look_together(*arguments: Any, **options: Any) -> Holding:
        found = looked(*arguments, **options)
        if not hasattr(mine, "looked"):
            mine.looked = True
            barrier.wait(30)
        return found

    monkeypatch.setattr(stored_index, "holding", look_together)


@pytest.mark.parametrize("n", [2, 3])
def test_of_shards_indexed_at_the_same_instant_one_keeps_the_id(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    shards = [_shard(tmp_path, name, ["shared", "and-this", f"own-{name}"]) for name in "abc"[:n]]
    with monkeypatch.context() as patched, ThreadPoolExecutor(n) as threads:
        _together(patched, n)
        stored = list(threads.map(lambda shard: index_and_store(Lake(root), shard), shards))
    lake = Lake(root)
    owners = Counter(lake.read("documents")["doc_id"].to_pylist())
    assert owners == Counter(["shared", "and-this", *(f"own-{name}" for name in "abc"[:n])])
    reasons = lake.read("quarantine")["reason"].to_pylist()
    assert len(reasons) == 2 * (n - 1)
    assert all("is a duplicate of a document in another shard" in reason for reason in reasons)
    for shard, one in zip(shards, stored, strict=True):
        rows = lake.read("documents", where={"domain": "web", "shard": shard.shard.name})
        assert rows.equals(one.indexed.documents)
    again = [index_and_store(lake, shard) for shard in shards]
    assert [one.changed for one in again] == [False] * n


def test_shards_that_share_nothing_or_another_domain_are_indexed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _together(monkeypatch, 3)
    root = Root.at(tmp_path / "root")
    read = Counter[str]()
    index = stored_index.index_shard

    def counted(shard: Shard, **options: object) -> object:
        read[shard.key] += 1
        return index(shard, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(stored_index, "index_shard", counted)
    shards = [_shard(tmp_path, "a", ["x"]), _shard(tmp_path, "b", ["y"]), _shard(tmp_path, "a", ["x"], domain="code")]
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda shard: index_and_store(Lake(root), shard), shards))
    assert read == {"web.a": 1, "web.b": 1, "code.a": 1}
    assert Lake(root).count("documents") == 3


def _step_by_step(root: Root, shards: list[LandedShard], turns: Iterable[str]) -> None:
    """Index the shards at the same time, each by a run that stops before every look and every commit of documents.

    A turn lets the run of that shard go on to its next stop. When `turns` are over, all take turns until they end.
    """
    mine = local()
    may_go, stopped = {landed.shard.name: Semaphore(0) for landed in shards}, Semaphore(0)
    looked, committed = stored_index.holding, Lake.replace_if_changed
    ended: set[str] = set()

    def stop() -> None:
        if hasattr(mine, "name"):
            stopped.release()
            assert may_go[mine.name].acquire(timeout=30)

    def look(*arguments: Any, **options: Any) -> Holding:
        stop()
        return looked(*arguments, **options)

    def commit(lake: Lake, name: str, *arguments: object, **options: object) -> tuple[int | None, bool]:
        if name == "documents":
            stop()
        return committed(lake, name, *arguments, **options)  # type: ignore[arg-type]

    def run(landed: LandedShard) -> None:
        name = mine.name = landed.shard.name
        assert may_go[name].acquire(timeout=30)
        try:
            index_and_store(Lake(root), landed)
        finally:
            ended.add(name)
            stopped.release()

    with pytest.MonkeyPatch.context() as patched, ThreadPoolExecutor(len(shards)) as threads:
        patched.setattr(stored_index, "holding", look)
        patched.setattr(Lake, "replace_if_changed", commit)
        runs = [threads.submit(run, shard) for shard in shards]
        for name in chain(turns, islice(cycle(may_go), 300)):
            if name not in ended:
                may_go[name].release()
                assert stopped.acquire(timeout=30)
        assert ended == set(may_go)
        for one in runs:
            one.result()


def _owners(root: Root) -> dict[str, list[str]]:
    """The shards that each id lives in."""
    owners: dict[str, list[str]] = {}
    for row in Lake(root).read("documents", columns=["doc_id", "shard"]).to_pylist():
        owners.setdefault(row["doc_id"], []).append(row["shard"])
    return owners


def test_who_gives_way_for_one_id_does_not_lose_another_to_who_gives_way_for_that(tmp_path: Path) -> None:
    root = Root.at(tmp_path / "root")
    shards = [_shard(tmp_path, "a", ["x"]), _shard(tmp_path, "b", ["x", "y"]), _shard(tmp_path, "c", ["y"])]
    look, commit = "aabbcc", "abc"
    _step_by_step(root, shards, look + commit + "bcbb")
    assert _owners(root) == {"x": ["a"], "y": ["b"]}


def test_an_id_that_its_shard_gives_up_meanwhile_is_taken(tmp_path: Path) -> None:
    root = Root.at(tmp_path / "root")
    index_and_store(Lake(root), _shard(tmp_path, "b", ["y", "z"]))
    shards = [_shard(tmp_path, "b", ["z"]), _shard(tmp_path, "c", ["y"])]
    _step_by_step(root, shards, "cc" + "bbb" + "c")
    assert _owners(root) == {"y": ["c"], "z": ["b"]}
    assert Lake(root).count("quarantine") == 0


_IDS = st.sets(st.sampled_from("vwxyz"), min_size=1)


@settings(max_examples=25, deadline=None)
@given(
    ids=st.fixed_dictionaries(dict.fromkeys("abc", _IDS)),
    there=st.sets(st.sampled_from("abc")),
    turns=st.lists(st.sampled_from("abc"), max_size=30),
)
def test_each_id_ends_in_one_shard_however_the_runs_meet(
    ids: dict[str, set[str]], there: set[str], turns: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Root.at(Path(directory) / "root")
        shards = [_shard(Path(directory), name, sorted(held)) for name, held in ids.items()]
        for landed in shards:
            if landed.shard.name in there:  # as if it were alone, so that ids live in several shards
                where = {"domain": landed.shard.domain, "shard": landed.shard.name}
                Lake(root).replace("documents", index_shard(landed.shard).documents, where=where)
        _step_by_step(root, shards, turns)
        owners = _owners(root)
        assert set(owners) == set().union(*ids.values())
        for one, (owner,) in owners.items():
            assert one in ids[owner]
        refused = sum(len(held) for held in ids.values()) - len(owners)
        assert Lake(root).count("quarantine") == refused
