"""New, replaced, removed and half-written files: each version of a file is asked for once, whatever happens."""

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.corpus.arrivals import Arrivals, Memory, arrivals
from attninf_assets.corpus.documents import LandedShard, Shard

NOW = 1_800_000_000.0


def landed(key: str, *, age: float = 3600, n_bytes: int = 10, uri: str = "/data/") -> LandedShard:
    domain, name = key.split(".")
    shard = Shard(domain, name, f"{uri}{key}.jsonl", "jsonl", "text", None)
    return LandedShard(shard, n_bytes, int((NOW - age) * 1e9))


def look(
    files: list[LandedShard],
    indexed: dict[str, str] | None = None,
    memory: Memory | None = None,
    *,
    at_most: int = 100,
    now: float = NOW,
) -> Arrivals:
    """One look where the known shards are the indexed ones."""
    versions = indexed or {}
    return arrivals(files, set(versions), memory or Memory(), indexed_version=versions.get, at_most=at_most, now=now)


def keys(files: list[LandedShard]) -> list[str]:
    return [file.shard.key for file in files]


def test_old_files_are_new_at_once_and_young_ones_wait_until_they_stand_still() -> None:
    growing, still = landed("a.growing", age=5), landed("a.still", age=5)
    first = look([landed("a.old"), growing, still])
    assert (keys(first.new), first.n_young) == (["a.old"], 2)
    grown = landed("a.growing", age=2, n_bytes=20)
    second = look([landed("a.old"), grown, still], {"a.old": landed("a.old").version}, first.memory)
    assert (keys(second.new), second.n_young) == (["a.still"], 1)


def test_a_file_becomes_old_enough_without_having_been_watched() -> None:
    assert keys(look([landed("a.x", age=5)], now=NOW + 56).new) == ["a.x"]
    assert keys(look([landed("a.x", age=5)], now=NOW + 54).new) == []


def test_objects_on_s3_are_whole_when_they_appear() -> None:
    assert keys(look([landed("a.x", age=0, uri="s3://bucket/")]).new) == ["a.x"]


def test_a_replaced_file_is_found_once_it_is_stable() -> None:
    old = landed("a.x")
    settled = look([old], {"a.x": old.version})
    assert (settled.new, settled.replaced) == ([], [])
    half = landed("a.x", age=1, n_bytes=3)
    writing = look([half], {"a.x": old.version}, settled.memory)
    assert (writing.replaced, writing.n_young) == ([], 1)
    whole = landed("a.x", age=0.5, n_bytes=30)
    assert look([whole], {"a.x": old.version}, writing.memory).replaced == []
    again = look([whole], {"a.x": old.version}, look([whole], {"a.x": old.version}, writing.memory).memory)
    assert keys(again.replaced) == ["a.x"]
    assert look([whole], {"a.x": old.version}, again.memory).replaced == []


def test_a_file_replaced_by_an_older_one_of_the_same_size_is_found() -> None:
    first = landed("a.x", age=3600)
    memory = look([first], {"a.x": first.version}).memory
    assert keys(look([landed("a.x", age=7200)], {"a.x": first.version}, memory).replaced) == ["a.x"]


def test_a_removed_file_is_named_as_long_as_its_partition_is_known() -> None:
    versions = {key: landed(key).version for key in ("a.x", "a.y")}
    found = look([landed("a.x")], versions)
    assert found.removed == ["a.y"]
    assert look([landed("a.x")], versions, found.memory).removed == ["a.y"]


def test_indexed_versions_are_asked_for_only_where_something_changed() -> None:
    files = [landed(f"a.{number:05}") for number in range(3_000)]
    versions = {file.shard.key: file.version for file in files}
    asked: list[str] = []

    def indexed_version(key: str) -> str:
        asked.append(key)
        return versions[key]

    memory, looks = Memory(), 0
    while len(asked) < 3_000:
        before = len(asked)
        memory = arrivals(files, set(versions), memory, indexed_version=indexed_version, at_most=100, now=NOW).memory
        assert len(asked) - before < 2_100
        looks += 1
    assert looks == 2
    files[7] = landed("a.00007", n_bytes=11)
    found = arrivals(files, set(versions), memory, indexed_version=indexed_version, at_most=100, now=NOW)
    assert keys(found.replaced) == ["a.00007"]
    assert len(asked) < 3_000 + 40


def test_shards_just_requested_are_not_compared_one_by_one_at_the_next_look() -> None:
    files = [landed("a.x"), landed("a.y")]
    memory = look(files).memory

    def indexed_version(key: str) -> str:
        raise AssertionError(f"{key} did not change")

    known = {"a.x", "a.y"}
    assert arrivals(files, known, memory, indexed_version=indexed_version, at_most=9, now=NOW).memory == memory


NAMES = [f"a.{letter}" for letter in string.ascii_lowercase[:12]]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["write", "remove", "look"])), max_size=60))
def test_whatever_happens_every_file_that_stays_is_requested_once_per_version(events: list[tuple[str, str]]) -> None:
    """The law, against a plain record of what was written: 2 requests a look, indexing that follows at once."""
    present: dict[str, LandedShard] = {}
    indexed: dict[str, str] = {}
    requested: list[tuple[str, str]] = []
    memory, written = Memory(), 0

    def one_look() -> None:
        nonlocal memory
        found = look(list(present.values()), indexed, memory, at_most=2)
        memory = found.memory
        assert len(found.new) + len(found.replaced) <= 2
        for file in (*found.new, *found.replaced):
            requested.append((file.shard.key, file.version))
            indexed[file.shard.key] = file.version

    for name, event in events:
        if event == "write":
            written += 1
            present[name] = landed(name, n_bytes=written)
        elif event == "remove":
            present.pop(name, None)
        else:
            one_look()
    for _ in range(len(NAMES)):
        one_look()
    assert {key: file.version for key, file in present.items()} == {key: indexed[key] for key in present}
    assert len(requested) == len(set(requested))
    n_before = len(requested)
    one_look()
    assert len(requested) == n_before
