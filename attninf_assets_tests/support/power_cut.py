"""A file system of its own in a file, from which the power can be cut: what was not on the disk is then gone."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Disk", "NoDiskError", "disk_to_cut"]

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_LOG_FLUSH = 2  # the journal's part that is in memory is lost, too


@dataclass(frozen=True)
class Disk:
    """An ext4 file system, mounted."""

    image: Path
    path: Path  # where it is mounted

    def cut_power(self) -> None:
        """Forget all that is not on the disk; from now on nothing can be read or written."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def mount_again(self) -> None:
        """Mount what is left, once no process has a file of it open; its journal is replayed."""
        subprocess.run(["umount", str(self.path)], check=True)
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.path)], check=True)


class NoDiskError(Exception):
    """No such disk can be made or mounted here, and why."""


@contextmanager
def disk_to_cut(directory: Path) -> Iterator[Disk]:
    """Such a disk of 64 MB. Raises `NoDiskError` where none can be made or mounted."""
    disk = Disk(directory / "disk.ext4", directory / "disk")
    disk.path.mkdir()
    with disk.image.open("wb") as stream:
        stream.truncate(64 << 20)
    for command in (
        ["mkfs.ext4", "-q", "-F", str(disk.image)],
        ["mount", "-o", "loop", str(disk.image), str(disk.path)],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NoDiskError(f"no disk whose power can be cut: {error}") from error
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk.path)], check=True)
