"""Files of a local folder that match a glob: only folders that it can reach are entered, and each of them once."""

import errno
import fnmatch
import os
import stat
from collections import deque
from collections.abc import Iterator

__all__ = ["local_files", "matches"]

_States = frozenset[int]  # how much of a pattern the path so far may have used up, in parts


def local_files(folder: str, pattern: str) -> Iterator[tuple[str, os.stat_result]]:
    """Path below `folder`, and status, of every regular file that matches, links followed; in no promised order.

    A folder to which several ways lead that the pattern takes alike, such as a link to a folder above or beside it,
    counts once: by its own path before a link's, then by the one found first in the order of names. So loops of links
    end. A folder that does not exist holds no files. Raises OSError for one that cannot be read, and ValueError for a
    name that is not UTF-8.
    """
    parts = pattern.split("/")
    visited: set[tuple[int, int, _States]] = set()
    waiting = deque([("", _reached(frozenset({0}), parts))])  # folders; then, behind all of these, links to folders
    links: deque[tuple[str, _States]] = deque()
    while waiting or links:
        below, states = waiting.popleft() if waiting else links.popleft()
        path = os.path.join(folder, below)
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino, states) in visited:
                continue
            visited.add((status.st_dev, status.st_ino, states))
            with os.scandir(path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except FileNotFoundError:  # or gone in the meantime
            continue
        for entry in entries:
            found = _status(entry)
            name = f"{below}/{entry.name}" if below else entry.name
            if found is None:
                continue
            if stat.S_ISDIR(found.st_mode):
                entered = _entered(states, entry.name, parts)
                if entered:
                    (links if entry.is_symlink() else waiting).append((name, entered))
            elif stat.S_ISREG(found.st_mode) and matches(name, pattern):
                _require_utf8(name, folder)
                yield name, found


def matches(path: str, pattern: str) -> bool:
    """Whether the relative `path` of a file matches the glob `pattern`.

    `*`, `?` and `[…]` stay within one name; `**` as a whole name crosses any number of folders, none included; at the
    end it is every file below. As in a shell, a wildcard does not match a name's leading dot.
    """
    *folders, name = path.split("/")
    parts = pattern.split("/")
    states = _reached(frozenset({0}), parts)
    for folder in folders:
        states = _entered(states, folder, parts)
    last = len(parts) - 1
    return last in states and (not name.startswith(".") if parts[last] == "**" else _is_like(name, parts[last]))


def _entered(states: _States, name: str, parts: list[str]) -> _States:
    """The states in a folder of that name, from those in the folder that holds it; none where nothing can match."""
    entered = {
        state if parts[state] == "**" else state + 1
        for state in states
        if (not name.startswith(".") if parts[state] == "**" else _is_like(name, parts[state]))
    }
    return _reached(frozenset(state for state in entered if state < len(parts)), parts)


def _reached(states: _States, parts: list[str]) -> _States:
    """With those that follow where a `**` stands for no folder."""
    reached, left = set(states), list(states)
    while left:
        state = left.pop()
        if parts[state] == "**" and state + 1 < len(parts) and state + 1 not in reached:
            reached.add(state + 1)
            left.append(state + 1)
    return frozenset(reached)


def _is_like(name: str, part: str) -> bool:
    return (part.startswith(".") or not name.startswith(".")) and fnmatch.fnmatchcase(name, part)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of what a link leads to; None for one that leads nowhere, and for what is gone."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return None
        raise


def _require_utf8(name: str, folder: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{folder}: the file name {os.fsencode(name)!r} is not valid UTF-8; rename the file") from None
