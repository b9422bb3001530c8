"""What a power cut must not take: a commit on a local root is pushed to the disk, and looked at when it is opened.

delta-rs pushes neither the data files nor the commit. On S3 what was written is kept, so there is nothing to do there.
"""

import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path

from attninf_assets.store.commits import Commit
from attninf_assets.store.fsync import sync_directories, sync_file
from attninf_assets.store.root import Root

__all__ = ["check_commits", "check_recent_commits", "make_all_durable", "make_durable"]

_RECENT = 32  # commits: as many as there are writers whose last one may not have been on disk
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(\.[\w.-]+)?\.parquet")
_HINT = "_last_checkpoint"
_PARQUET = b"PAR1"  # a file's first bytes and its last


def make_durable(root: Root, name: str, versions: Iterable[int]) -> None:
    """Return when those commits of a table would outlive a power cut: first the data they add, then themselves.

    A commit means nothing without those before it, so include the one that it was written upon, whose writer may not
    have come this far. Raises as `Commit.read` does.
    """
    if not root.is_local:
        return
    table, top = Path(root.table_uri(name)), Path(root.uri)
    log = table / "_delta_log"
    commits = [commit for version in versions if (commit := Commit.read(root, name, version)) is not None]
    data = [table / path for commit in commits for path in commit.added]
    for file in data:
        _sync_if_there(file)
    sync_directories({file.parent for file in data if file.parent.exists()}, top=top)
    for commit in commits:
        # the checkpoint as well: delta-rs deletes commits that one stands for
        for file in chain(log.glob(f"{commit.version:020}.checkpoint*"), [log / f"{commit.version:020}.json"]):
            _sync_if_there(file)
    _sync_if_there(log / _HINT)
    sync_directories([log], top=top)


def make_all_durable(root: Root) -> None:
    """Return when whatever anybody has written under the root would outlive a power cut."""
    if root.is_local:
        os.sync()


def check_recent_commits(root: Root, name: str) -> None:
    """Look at the newest commits of a table on a local root, as `check_commits` does.

    Checkpoints that a power cut left unfinished are deleted: they say again what commits say, and delta-rs would fail.
    """
    if not root.is_local:
        return
    log = Path(root.table_uri(name)) / "_delta_log"
    if log.is_dir():
        _delete_unfinished_checkpoints(log)
        found = [int(match[1]) for file in os.listdir(log) if (match := _COMMIT.fullmatch(file))]
        check_commits(root, name, sorted(found)[-_RECENT:])


def _delete_unfinished_checkpoints(log: Path) -> None:
    """A checkpoint gets its name when its writer has it whole, so one that is not was cut by nothing but the power.

    One whose commit is not there any more is left: nothing else says what it said.
    """
    names = set(os.listdir(log))
    for match in filter(None, map(_CHECKPOINT.fullmatch, names)):
        with suppress(FileNotFoundError):  # others delete old ones
            if f"{match[1]}.json" in names and not _is_whole(log / match[0]):
                (log / match[0]).unlink()
    if _HINT in names:
        with suppress(FileNotFoundError):
            version = _hinted(log / _HINT)
            if version is None or not any(log.glob(f"{version:020}.checkpoint*")):
                (log / _HINT).unlink()


def _is_whole(checkpoint: Path) -> bool:
    with checkpoint.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        begin = stream.read(len(_PARQUET))
        stream.seek(max(0, size - len(_PARQUET)))
        return size > 2 * len(_PARQUET) and begin == stream.read() == _PARQUET


def _hinted(hint: Path) -> int | None:
    """The version whose checkpoint is the newest, as far as the file says so."""
    try:
        content = json.loads(hint.read_bytes())
    except ValueError:
        return None
    version = content.get("version") if isinstance(content, dict) else None
    return version if isinstance(version, int) else None


def check_commits(root: Root, name: str, versions: Iterable[int]) -> None:
    """Raise ValueError, naming the table and the file, if one of those commits is not whole.

    Nothing is looked at on S3, where a file is there whole or not at all. A data file that is cut or missing is named
    by whoever reads it (see `damage`), so that the rest of its table can still be read, and the file be repaired.
    """
    if root.is_local:
        for version in versions:
            Commit.read(root, name, version)


def _sync_if_there(file: Path) -> None:
    try:
        sync_file(file)
    except FileNotFoundError:
        return  # replaced since, and vacuumed
