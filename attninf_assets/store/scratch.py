"""Directories for what is only needed while a process works, and gone with it, however it ends.

A directory is locked (flock) as long as it is in use. The operating system gives the lock back with the process, so one
that is free belongs to nobody, and whoever needs a directory of the same kind next deletes it. Its name holds the host:
a lock says nothing about processes elsewhere.
"""

import atexit
import fcntl
import os
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

__all__ = ["UNFINISHED", "held_directory", "scratch_directory", "scratch_of_process", "sweep_dead", "sweep_scratch"]

_OURS = "attninf-"  # begins the names of those in the temporary directory
UNFINISHED = ".unfinished-"  # begins the names of directories that get their own when they are whole


@contextmanager
def scratch_directory(purpose: str) -> Iterator[Path]:
    """An empty directory in the temporary one, for as long as the context lasts."""
    with held_directory(Path(tempfile.gettempdir()), f"{_OURS}{purpose}-", mode=0o700) as directory:
        yield directory


def scratch_of_process(purpose: str) -> Path:
    """A directory in the temporary one, the same at every call, for as long as this process lasts."""
    return _scratch_of(os.getpid(), purpose)


@cache
def _scratch_of(process: int, purpose: str) -> Path:
    held = scratch_directory(purpose)
    directory = held.__enter__()

    def release() -> None:
        if os.getpid() == process:  # not in one that was forked from it
            held.__exit__(None, None, None)

    atexit.register(release)
    return directory


@contextmanager
def held_directory(parent: Path, prefix: str, *, mode: int = 0o777) -> Iterator[Path]:
    """An empty directory in `parent`, for as long as the context lasts, unless it is renamed meanwhile.

    Directories of that prefix which dead processes of this host left are deleted first.
    """
    sweep_dead(parent, prefix)
    while True:
        directory = parent / f"{prefix}{_host()}-{uuid.uuid4().hex}"
        directory.mkdir(parents=True, mode=mode)
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # taken for a dead one before it could be locked
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if directory.exists():
            break
        os.close(descriptor)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def sweep_dead(parent: Path, prefix: str) -> list[Path]:
    """Delete the directories of that prefix in `parent` which no living process of this host holds; which they were."""
    swept = []
    for directory in sorted(parent.glob(f"{prefix}{_host()}-*")):
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue  # somebody else's, or gone meanwhile
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(directory, ignore_errors=True)
            swept.append(directory)
        finally:
            os.close(descriptor)
    return swept


def sweep_scratch() -> list[Path]:
    """Delete what dead processes of this host left in the temporary directory, for whatever purpose; which it was."""
    return sweep_dead(Path(tempfile.gettempdir()), f"{_OURS}*-")


def _host() -> str:
    return socket.gethostname().replace("/", "_")
