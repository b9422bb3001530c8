"""Copies of every commit and checkpoint of a table's log, kept apart from it, with the sha256 of the data added.

Under a local root a commit is copied right after it was made, by the process that made it; where that was killed in
between, by the next writer of the table or the next scrub. On S3 the store watches over what it holds, and reading all
of it again would cost as much as writing it did: there scrubs alone make the copies. A copy begins with a sha256 of its
own, so damage to it is told from damage to what it is of. Copies lie in `checksums/<table>/<table id>/`, since a table
that was made anew is another. They take less than the log itself, and go when what they are of has left the log.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow.fs as pafs

from attninf_assets.store.commits import Commit
from attninf_assets.store.root import Root

__all__ = ["LOG", "LogCopy", "copy_commits", "delete_copies", "read_copies", "sha256_of", "write_copy"]

LOG = "_delta_log"
_PIECE = 1 << 20  # bytes read at once
_AT_ONCE = 8


@dataclass(frozen=True)
class LogCopy:
    """What a file of the log was when it was seen first."""

    content: bytes
    added: Mapping[str, str]  # sha256 of the data files that a commit adds, by path below the table's directory

    def to_bytes(self) -> bytes:
        """As it is stored: the sha256 of the rest, then header and content, compressed."""
        rest = zlib.compress(json.dumps(dict(self.added)).encode() + b"\n" + self.content)
        return hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest

    @classmethod
    def from_bytes(cls, data: bytes) -> "LogCopy":
        """What `to_bytes` made. Raises ValueError where it is damaged."""
        digest, _, rest = data.partition(b"\n")
        if hashlib.sha256(rest).hexdigest().encode() != digest:
            raise ValueError("the copy of a file of the log is damaged: its own sha256 differs")
        header, _, content = zlib.decompress(rest).partition(b"\n")
        return cls(content, json.loads(header))


def copy_commits(root: Root, name: str, table_id: str, versions: Iterable[int]) -> None:
    """Copy those commits of a table, each with the sha256 of the files it adds; a copy that is there is left alone."""
    for version in versions:
        file = f"{LOG}/{version:020}.json"
        if root.exists(_place(name, table_id, file)):
            continue
        commit = Commit.read(root, name, version)
        if commit is not None:
            added = {path: sha256 for path in commit.added if (sha256 := _sha256_if_there(root, name, path))}
            write_copy(root, name, table_id, file, LogCopy(root.read_bytes(f"tables/{name}/{file}"), added))


def write_copy(root: Root, name: str, table_id: str, file: str, copy: LogCopy) -> None:
    """Keep the copy of a file of the table's log; `file` is its path below the table's directory."""
    root.write_bytes(_place(name, table_id, file), copy.to_bytes())


def read_copies(root: Root, name: str) -> tuple[dict[str, dict[str, LogCopy]], dict[str, str]]:
    """The copies by table id and file, and what is wrong with those that are damaged, by their path below the root."""
    copies: dict[str, dict[str, LogCopy]] = {}
    damaged: dict[str, str] = {}
    paths = [path for path in root.list(f"checksums/{name}") if not path.rpartition("/")[2].startswith(".")]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for path, found in zip(paths, pool.map(lambda path: _read(root, path), paths), strict=True):
            *_, table_id, file = path.split("/")
            if isinstance(found, LogCopy):
                copies.setdefault(table_id, {})[f"{LOG}/{file}"] = found
            elif found:
                damaged[path] = found
    return copies, damaged


def delete_copies(root: Root, name: str, table_id: str, files: Iterable[str] | None = None) -> None:
    """Forget the copies of files that have left the log; all of them, where the table itself has gone."""
    if files is None:
        root.delete(f"checksums/{name}/{table_id}")
        return
    for file in files:
        root.delete(_place(name, table_id, file))


def sha256_of(filesystem: pafs.FileSystem, path: str) -> str:
    """Of a file, in hex, read in pieces."""
    digest = hashlib.sha256()
    with filesystem.open_input_stream(path) as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _read(root: Root, path: str) -> "LogCopy | str":
    try:
        return LogCopy.from_bytes(root.read_bytes(path))
    except FileNotFoundError:  # what it is of has left the log meanwhile
        return ""
    except ValueError as error:
        return str(error)


def _sha256_if_there(root: Root, name: str, path: str) -> str | None:
    try:
        return sha256_of(*root.locate(f"tables/{name}/{path}"))
    except FileNotFoundError:
        return None  # replaced since, and vacuumed


def _place(name: str, table_id: str, file: str) -> str:
    return f"checksums/{name}/{table_id}/{file.removeprefix(f'{LOG}/')}"
