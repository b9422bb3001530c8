"""Files and names pushed down to the disk itself, where a power cut leaves them.

A file that is renamed or linked into place is whole for every reader at once, and may still be empty or absent after a
power cut: its bytes and its directory's entry wait in memory for half a minute.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["sync_directories", "sync_file"]


def sync_file(path: Path) -> None:
    """Return when the file's bytes are on disk. Its name is on disk after `sync_directories`."""
    _sync(path, os.O_RDONLY)


def sync_directories(leaves: Iterable[Path], *, top: Path) -> None:
    """Return when the names in these directories, and in all above them up to `top`, are on disk."""
    wanted = {directory for leaf in leaves for directory in (leaf, *leaf.parents) if directory.is_relative_to(top)}
    for directory in sorted(wanted, key=lambda directory: len(directory.parts), reverse=True):
        try:
            _sync(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno != errno.EINVAL:  # what a file system says that keeps its directories by itself
                raise


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
