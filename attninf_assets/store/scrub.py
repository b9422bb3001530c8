"""Every file of every table compared with what the log says of it, and with what it was when it was seen last."""

import hashlib
import json
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from attninf_assets.store.checksums import read_checksums, record_of, write_checksums
from attninf_assets.store.compatibility import check_is_ours
from attninf_assets.store.damage import CHANGED, Damage, examine, sha256_of_file
from attninf_assets.store.open_tables import storage_options
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.snapshots import Snapshot
from attninf_assets.store.tables import Lake

__all__ = ["LOG", "scrub"]

LOG = "_delta_log"
_OF_LOG = re.compile(rf"{LOG}/\d{{20}}(\.checkpoint)?\.(json|parquet)")


def scrub(lake: Lake, *, only_new: bool = False) -> list[Damage]:
    """What is damaged in the newest version of every table; what is sound is recorded, to be known again.

    Reads every file once: what a scrub before has recorded is compared with its sha256, the rest is decoded page by
    page, one file in memory at a time. With `only_new` the former are left alone. A bit flipped before the first scrub
    of a file is noticed only if the file cannot be decoded for it. The log's files are watched alike. A record of which
    no file stands is that of another table, which was moved away, and is begun anew. Raises OSError where the storage
    does not answer.
    """
    return [damage for name in TABLES for damage in _scrubbed(lake.root, name, only_new=only_new)]


def _scrubbed(root: Root, name: str, *, only_new: bool) -> Iterator[Damage]:
    if not root.exists(f"tables/{name}/{LOG}"):
        return
    record_is_sound = True
    try:
        recorded = read_checksums(root, name)
    except ValueError as error:
        yield Damage(name, None, record_of(name), str(error))
        recorded, record_is_sound = {}, False
    filesystem, path = root.locate(f"tables/{name}")
    directory = pafs.SubTreeFileSystem(path, filesystem)
    recorded = _of_this_table(directory, recorded)
    sound: dict[str, str] = {}
    for file in _log_files(root, name):
        if only_new and file in recorded:
            sound[file] = recorded[file]
            continue
        sha256, wrong = _examine_log(directory, file, known=recorded.get(file))
        if wrong:
            yield Damage(name, None, file, wrong)
        if sha256:
            sound[file] = sha256
    try:
        table = DeltaTable(root.table_uri(name), storage_options=storage_options(root))
        check_is_ours(name, root.table_uri(name), table)
    except (DeltaError, ValueError) as error:
        yield Damage(name, None, LOG, f"the log cannot be read: {error}")
        return
    snapshot = Snapshot.of(name, table)
    for file in snapshot.files.to_pylist():
        known = recorded.get(file["path"])
        if only_new and known is not None:
            sound[file["path"]] = known
            continue
        sha256, wrong = examine(directory, name, file, known=known)
        if wrong:
            yield Damage(name, snapshot.partition(name, file), file["path"], wrong)
        if sha256 := known or sha256:  # what was recorded stays the measure
            sound[file["path"]] = sha256
    if record_is_sound and sound != recorded:
        write_checksums(root, name, sound)


def _of_this_table(directory: pafs.FileSystem, recorded: dict[str, str]) -> dict[str, str]:
    """What is recorded; nothing where no file of it stands: of a table that was moved away, and made anew."""
    there = (file for file in recorded if directory.get_file_info(file).type == pafs.FileType.File)
    return recorded if any(sha256_of_file(directory, file) == recorded[file] for file in there) else {}


def _log_files(root: Root, name: str) -> list[str]:
    """The commits and checkpoints, which are never written again; the pointer to the last checkpoint is."""
    listed = (path.removeprefix(f"tables/{name}/") for path in root.list(f"tables/{name}/{LOG}"))
    return [path for path in listed if _OF_LOG.fullmatch(path)]


def _examine_log(directory: pafs.FileSystem, file: str, *, known: str | None) -> tuple[str, str]:
    """As `examine` does, of a file of the log."""
    if known is not None:
        return known, "" if sha256_of_file(directory, file) == known else CHANGED
    with directory.open_input_stream(file) as stream:
        data = stream.read()
    try:
        if file.endswith(".parquet"):
            pq.read_table(pa.BufferReader(data)).validate(full=True)
        elif not [json.loads(line) for line in data.decode().splitlines()]:
            return "", "the commit is empty"
    except Exception as error:  # decoding in memory: whatever it raises is the data's fault
        return "", f"it cannot be decoded: {type(error).__name__}: {error}"
    return hashlib.sha256(data).hexdigest(), ""
