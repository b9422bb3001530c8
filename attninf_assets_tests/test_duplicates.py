"""A doc_id has one shard in its domain, however many are indexed at the same time."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, local

import pytest

from attninf_assets.corpus import duplicates
from attninf_assets.corpus.duplicates import index_and_store
from attninf_assets.corpus.schema import Shard
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake


def _shard(directory: Path, name: str, ids: list[str], *, domain: str = "web") -> Shard:
    source = directory / f"{domain}-{name}.jsonl"
    source.write_text("".join(json.dumps({"id": one, "text": f"text {one} in {name}"}) + "\n" for one in ids))
    return Shard(domain, name, str(source), "jsonl", "text", "id")


def _together(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """Let `n` threads look for duplicates before any of them stores what it found."""
    looked, barrier, mine = duplicates._ids_elsewhere, Barrier(n), local()

    def look_together(*arguments: object) -> set[str]:
        found = looked(*arguments)  # type: ignore[arg-type]
        if not hasattr(mine, "looked"):
            mine.looked = True
            barrier.wait(30)
        return found

    monkeypatch.setattr(duplicates, "_ids_elsewhere", look_together)


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
        rows = lake.read("documents", where={"domain": shard.domain, "shard": shard.name})
        assert rows.equals(one.indexed.documents)
    again = [index_and_store(lake, shard) for shard in shards]
    assert [one.changed for one in again] == [False] * n


def test_shards_that_share_nothing_or_another_domain_are_indexed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _together(monkeypatch, 3)
    root = Root.at(tmp_path / "root")
    read = Counter[str]()
    index = duplicates.index_shard

    def counted(shard: Shard, **options: object) -> object:
        read[shard.key] += 1
        return index(shard, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(duplicates, "index_shard", counted)
    shards = [_shard(tmp_path, "a", ["x"]), _shard(tmp_path, "b", ["y"]), _shard(tmp_path, "a", ["x"], domain="code")]
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda shard: index_and_store(Lake(root), shard), shards))
    assert read == {"web.a": 1, "web.b": 1, "code.a": 1}
    assert Lake(root).count("documents") == 3
