"""Comparison of the source files with what was seen before: files that are new, replaced, gone or still being written.

What was seen is remembered in a size that does not grow with the corpus: one checksum for each of 256 groups of shards.
Where a group's checksum differs, its shards are compared one by one with what was indexed.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from attninf_assets.corpus.documents import LandedShard

__all__ = ["Arrivals", "LandedShard", "Memory", "arrivals"]

SETTLED_AFTER = 60.0  # seconds without modification after which a file is taken to be whole
_GROUPS = 256
_COMPARED_AT_ONCE = 2_000  # shards compared one by one in one look
_WATCHED_AT_ONCE = 500  # young files remembered from one look to the next


@dataclass(frozen=True)
class Memory:
    """What the sensor remembers from one look at the source files to the next."""

    checksums: tuple[int, ...] = (0,) * _GROUPS  # over the versions dealt with, a 64-bit number per group
    young: Mapping[str, str] = field(default_factory=dict)  # versions of files that may still be written, by key


@dataclass(frozen=True)
class Arrivals:
    """Which shards are to be registered, indexed or named as gone, after one look at the source files."""

    new: list[LandedShard]
    replaced: list[LandedShard]
    removed: list[str]  # keys whose file is gone
    n_young: int  # files left until they are stable
    n_later: int  # new files left for the next look
    memory: Memory


def arrivals(
    landed: Sequence[LandedShard],
    known: Set[str],
    memory: Memory,
    *,
    indexed_version: Callable[[str], str | None],
    at_most: int,
    now: float | None = None,
) -> Arrivals:
    """Compare the listed shards with the known ones; at most `at_most` new and replaced files are returned.

    A file is left alone until it was not modified for `SETTLED_AFTER` seconds or is the same as at the look before;
    objects on S3 appear whole. `indexed_version` gives the version of a known shard's file that was indexed last, None
    where none was; it is asked only where a group's checksum differs. `now` is in seconds since 1970.
    """
    now = time.time() if now is None else now
    by_key = {file.shard.key: file for file in landed}
    stable = {key for key, file in by_key.items() if _is_stable(file, memory, now)}
    arrived = sorted(key for key in stable if key not in known)
    new = arrived[:at_most]

    groups: list[list[str]] = [[] for _ in range(_GROUPS)]
    for key in sorted(by_key.keys() & known):
        groups[_checksum(key) % _GROUPS].append(key)
    checksums, compared = list(memory.checksums), 0
    replaced: list[str] = []
    being_replaced: list[str] = []
    for group, keys in enumerate(groups):
        combined = _combined(by_key, keys)
        if combined == memory.checksums[group] or compared >= _COMPARED_AT_ONCE:
            continue
        compared += len(keys)
        changed = [key for key in keys if indexed_version(key) != by_key[key].version]
        room = at_most - len(new) - len(replaced)
        replaced += [key for key in changed if key in stable][:room]
        being_replaced += [key for key in changed if key not in stable]
        if stable.issuperset(changed) and len(changed) <= room:
            checksums[group] = combined
    for key in new:
        checksums[_checksum(key) % _GROUPS] ^= _combined(by_key, [key])
    young = sorted([*(by_key.keys() - known - stable), *being_replaced])
    watched = sorted([*young, *(key for key in arrived[at_most:] if _is_recent(by_key[key], now))])
    return Arrivals(
        new=[by_key[key] for key in new],
        replaced=[by_key[key] for key in replaced],
        removed=sorted(known - by_key.keys()),
        n_young=len(young),
        n_later=len(arrived) - len(new),
        memory=Memory(tuple(checksums), {key: by_key[key].version for key in watched[:_WATCHED_AT_ONCE]}),
    )


def _is_stable(file: LandedShard, memory: Memory, now: float) -> bool:
    on_disk = "://" not in file.shard.uri
    return not on_disk or not _is_recent(file, now) or memory.young.get(file.shard.key) == file.version


def _is_recent(file: LandedShard, now: float) -> bool:
    return now - file.modified_ns / 1e9 < SETTLED_AFTER


def _combined(files: Mapping[str, LandedShard], keys: Sequence[str]) -> int:
    combined = 0
    for key in keys:
        combined ^= _checksum(f"{key}\0{files[key].version}")
    return combined


def _checksum(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
