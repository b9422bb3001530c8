"""Every file of every table compared with what the log says of it, and with what it was when it was written."""

from collections.abc import Generator, Iterator, Mapping

import pyarrow.fs as pafs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from attninf_assets.store.checksums import read_checksums, record_of, write_checksums
from attninf_assets.store.compatibility import check_is_ours
from attninf_assets.store.damage import CHANGED, Damage, examine
from attninf_assets.store.log_copies import LOG, sha256_of
from attninf_assets.store.log_scrub import TableLog
from attninf_assets.store.open_tables import storage_options
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.snapshots import Snapshot
from attninf_assets.store.tables import Lake

__all__ = ["scrub"]


def scrub(lake: Lake, *, only_new: bool = False) -> list[Damage]:
    """What is damaged in every table; what is sound is recorded, to be known again.

    Reads every file once: what is recorded is compared with its sha256, the rest is decoded page by page, one file in
    memory at a time. With `only_new` the former are left alone. The log's files are compared with their copies; while
    one is to be put back, the table's data is not looked at, as nobody knows which files it consists of. Files that
    only earlier versions of a table have are looked at as well, once they are recorded. Raises OSError where the
    storage does not answer.
    """
    return [damage for name in TABLES for damage in _scrubbed(lake.root, name, only_new=only_new)]


def _scrubbed(root: Root, name: str, *, only_new: bool) -> Iterator[Damage]:
    if not root.exists(f"tables/{name}/{LOG}"):
        return
    record_is_sound = True
    try:
        recorded = read_checksums(root, name)
    except ValueError as error:
        yield Damage(record_of(name), str(error), name)
        recorded, record_is_sound = {}, False
    log = TableLog.read(root, name)
    yield from log.damaged_copies
    of_log = list(log.damages())
    yield from of_log
    if any(log.can_put_back(damage) for damage in of_log):
        return
    try:
        table = DeltaTable(root.table_uri(name), storage_options=storage_options(root))
        check_is_ours(name, root.table_uri(name), table)
    except (DeltaError, ValueError) as error:
        yield Damage(f"tables/{name}/{LOG}", f"the log cannot be read: {error}", name)
        return
    of_commits = {path: sha256 for copy in log.copies.values() for path, sha256 in copy.added.items()}
    sound = yield from _data(root, name, Snapshot.of(name, table), of_commits | recorded, only_new=only_new)
    if record_is_sound and sound != recorded:
        write_checksums(root, name, sound)
    if record_is_sound and not of_log and not log.damaged_copies:
        log.keep_copies(str(table.metadata().id))


def _data(
    root: Root, name: str, snapshot: Snapshot, recorded: Mapping[str, str], *, only_new: bool
) -> Generator[Damage, None, dict[str, str]]:
    """Yields what is damaged of the table's data; returns the sha256 of every file that is to be known again."""
    filesystem, path = root.locate(f"tables/{name}")
    directory = pafs.SubTreeFileSystem(path, filesystem)
    sound: dict[str, str] = {}
    for file in snapshot.files.to_pylist():
        known = recorded.get(file["path"])
        if only_new and known is not None:
            sound[file["path"]] = known
            continue
        sha256, wrong = examine(directory, name, file, known=known)
        if wrong:
            yield Damage(f"tables/{name}/{file['path']}", wrong, name, snapshot.partition(name, file))
        if sha256 := known or sha256:  # what was recorded stays the measure
            sound[file["path"]] = sha256
    there = {path.removeprefix(f"tables/{name}/") for path in root.list(f"tables/{name}")}
    for path in sorted((recorded.keys() - sound.keys()) & there):
        sound[path] = recorded[path]
        if not only_new and _is_changed(directory, path, recorded[path]):
            yield Damage(f"tables/{name}/{path}", CHANGED, name, of_earlier_versions=True)
    return sound


def _is_changed(directory: pafs.FileSystem, path: str, known: str) -> bool:
    try:
        return sha256_of(directory, path) != known
    except FileNotFoundError:  # vacuumed meanwhile
        return False
