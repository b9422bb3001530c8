"""Delta tables that stay open in this process, so that not every look at one reads its whole log again.

Opening a table costs a replay of its log, in proportion to its files; bringing an open one up to date costs only what
was committed since. But a handle does not notice that its table was deleted, exchanged or put back as it once was: it
would add the commits of one table to the files of another. So each is kept with the beginning of the commit it stands
on, and is used only if that very commit is in the log still.

A handle is taken out while it is used: no two threads share one, and one that failed is not put back.
"""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from attninf_assets.store.compatibility import check_is_ours
from attninf_assets.store.durability import check_commits, check_recent_commits
from attninf_assets.store.root import Root
from attninf_assets.store.snapshots import Snapshot

__all__ = ["Handle", "forget", "keep", "snapshot_at", "storage_options", "take"]

_PATIENCE = {"max_retries": "6", "retry_timeout": "90s"}  # for S3 while it is busy or away, per request
_MOST = 32  # handles, and as many snapshots, each of some hundred bytes per file of its table
_MARK_BYTES = 4096  # of a commit: more than its time, which a commit begins with, and the first file it names

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class _Mark:
    """A commit by which the log up to it is known again."""

    version: int
    beginning: bytes  # empty where the log does not have it, or no longer


@dataclass
class Handle:
    """An open Delta table, the options it was opened with, and the snapshot that it stands on."""

    table: DeltaTable
    options: Mapping[str, str] = field(repr=False)  # it was opened with
    mark: _Mark
    snapshot: Snapshot


_lock = threading.Lock()
_handles: OrderedDict[str, Handle] = OrderedDict()
_snapshots: OrderedDict[tuple[str, int], tuple[_Mark, Snapshot]] = OrderedDict()


def storage_options(root: Root) -> dict[str, str]:
    """The options with which delta-rs opens the root's tables now, credentials included."""
    return {**_PATIENCE, **root.storage_options}


def take(root: Root, name: str) -> Handle | None:
    """The table at its newest version, for the caller alone; None if there is none. Give it back with `keep`.

    Raises ValueError where the table is not ours, and where a power cut left a commit unfinished.
    """
    options, uri = storage_options(root), root.table_uri(name)
    with _lock:
        handle = _handles.pop(uri, None)
    if handle is not None and handle.options == options and _is_current(root, name, handle):
        return handle
    check_recent_commits(root, name)
    try:
        table = DeltaTable(uri, storage_options=options)
    except TableNotFoundError:
        return None
    check_is_ours(name, uri, table)
    return Handle(table, options, _mark(root, name, table.version()), Snapshot.of(name, table))


def keep(root: Root, name: str, handle: Handle) -> None:
    """Put back a handle, for the next `take` of the table."""
    uri = root.table_uri(name)
    with _lock:
        _put(_handles, uri, handle)
        _put(_snapshots, (uri, handle.snapshot.version), (handle.mark, handle.snapshot))


def forget(root: Root, name: str) -> None:
    """Let go of whatever is known of the table, whose log was changed from outside."""
    uri = root.table_uri(name)
    with _lock:
        _handles.pop(uri, None)
        for key in [key for key in _snapshots if key[0] == uri]:
            del _snapshots[key]


def snapshot_at(root: Root, name: str, version: int) -> Snapshot:
    """The table as it was at that version. Raises ValueError where there is no such version to be read."""
    uri = root.table_uri(name)
    with _lock:
        kept = _snapshots.get((uri, version))
    if kept is not None and _stands(root, name, kept[0]):
        return kept[1]
    try:
        table = DeltaTable(uri, version=version, storage_options=storage_options(root))
    except DeltaError as error:
        raise ValueError(f"{uri}: there is no version {version} to be read: {error}") from error
    check_is_ours(name, uri, table)
    snapshot = Snapshot.of(name, table)
    with _lock:
        _put(_snapshots, (uri, version), (_mark(root, name, version), snapshot))
    return snapshot


def _is_current(root: Root, name: str, handle: Handle) -> bool:
    """Bring the handle up to date; False if it is of no use, because what it was opened on is gone."""
    try:
        handle.table.update_incremental()
    except DeltaError:
        return False
    version, mark = handle.table.version(), handle.mark
    if version != mark.version:
        mark = _mark(root, name, version)
    if not _stands(root, name, handle.mark):  # looked at last: so the new mark is of the same log
        return False
    if version != handle.snapshot.version:
        check_commits(root, name, range(handle.snapshot.version + 1, version + 1))
        check_is_ours(name, root.table_uri(name), handle.table)
        handle.mark, handle.snapshot = mark, Snapshot.of(name, handle.table)
    return True


def _mark(root: Root, name: str, version: int) -> _Mark:
    filesystem, path = root.locate(f"tables/{name}/_delta_log/{version:020}.json")
    try:
        with filesystem.open_input_stream(path, buffer_size=0) as stream:
            return _Mark(version, stream.read(_MARK_BYTES))
    except FileNotFoundError:
        return _Mark(version, b"")


def _stands(root: Root, name: str, mark: _Mark) -> bool:
    return mark.beginning != b"" and mark == _mark(root, name, mark.version)


def _put(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _MOST:
        kept.popitem(last=False)
