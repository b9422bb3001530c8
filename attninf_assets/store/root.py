"""The one place everything is stored: a local directory or a prefix of an S3 bucket."""

import errno
import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions, filesystem_for, options_now
from attninf_assets.store.fsync import sync_directories, sync_file
from attninf_assets.store.uris import require_no_secret

__all__ = ["Root"]

# Of the characters left out, delta-rs mistakes some for URL syntax and DuckDB some for patterns; on S3 delta-rs escapes
# all but the plainest twice when it looks for a checkpoint.
_LOCAL = re.compile(r"[^*?\[\]|^%\\\x00-\x1f]+")
_LONGEST_SHOWN = 200  # characters of a location that is refused
_ATTEMPTS = 20  # to write into a directory that others delete
_S3 = re.compile(r"[A-Za-z0-9._=+/-]+")


@dataclass(frozen=True)
class Root:
    """A storage root. Build it with `Root.at`, which normalizes and checks the location.

    It keeps the connection's settings and secrets (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN, AWS_REGION, AWS_ALLOW_HTTP), or what gives the current ones; they never show in the repr.
    Paths given to the methods are relative to the root, with forward slashes.
    """

    uri: str  # absolute local path, or s3://bucket/prefix; no trailing slash
    _options: StorageOptions = field(default_factory=dict, repr=False, hash=False)

    @classmethod
    def at(cls, location: str | os.PathLike[str], storage_options: StorageOptions = NO_OPTIONS) -> "Root":
        """The root at a local path (relative ones from the working directory) or `s3://bucket/prefix`.

        Raises ValueError for an empty location, any other scheme, credentials in the URI, and characters that the
        table format or the query engine would misread: locally any of `*?[]|^%`, backslash and control characters, on
        S3 all but letters, digits and `._=+-`.
        """
        text = os.fspath(location)
        require_no_secret(text)
        shown = repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")
        if text.startswith("s3://"):
            path = text.removeprefix("s3://")
            parts = [part for part in path.split("/") if part]
            if not parts or ".." in parts or text.startswith("s3:///") or not _S3.fullmatch(path):
                raise ValueError(f"storage root {shown}: expected s3://bucket/prefix of letters, digits and ._=+-")
            uri = "s3://" + "/".join(parts)
        elif "://" in text or text.startswith("file:") or not _LOCAL.fullmatch(text):
            raise ValueError(f"storage root {shown}: expected s3://bucket/prefix or a local path without *?[]|^%\\")
        else:
            uri = os.path.abspath(os.path.expanduser(text))
        return cls(uri, storage_options if callable(storage_options) else dict(storage_options))

    @property
    def storage_options(self) -> Mapping[str, str]:
        """The connection's settings and secrets as they are now."""
        return options_now(self._options)

    @property
    def is_local(self) -> bool:
        """Whether the root is a directory of this machine."""
        return not self.uri.startswith("s3://")

    def table_uri(self, name: str) -> str:
        """Where the Delta table of that name lies."""
        return f"{self.uri}/tables/{name}"

    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        """The root's Arrow filesystem, and the root's own path on it."""
        return filesystem_for(self.uri, self._options)

    def locate(self, rel: str) -> tuple[pafs.FileSystem, str]:
        """The root's Arrow filesystem and the full path of `rel` on it.

        Raises ValueError if `rel` is empty, absolute or climbs out of the root.
        """
        parts = rel.split("/")
        if not rel or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"path {rel!r} under {self.uri}: expected a relative path inside the root")
        fs, base = self.filesystem()
        return fs, f"{base}/{rel}"

    def read_bytes(self, rel: str) -> bytes:
        """The whole file; FileNotFoundError if there is none."""
        fs, path = self.locate(rel)
        try:
            with fs.open_input_stream(path) as stream:
                return stream.read()
        except OSError as error:
            # on S3, one that is deleted between opening and reading it is an "internal failure"
            if not self.is_local and fs.get_file_info(path).type == pafs.FileType.NotFound:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.uri}/{rel}") from error
            raise

    def write_bytes(self, rel: str, data: bytes) -> None:
        """Write the file so that readers see the old content or the new, never a part; nor does a power cut take it."""
        fs, path = self.locate(rel)
        if self.is_local:
            _write_atomically(Path(path), data, top=Path(self.uri))
        else:
            with fs.open_output_stream(path) as stream:
                stream.write(data)

    def open_output(self, rel: str) -> pa.NativeFile:
        """A stream to a file written piece by piece; it may be seen unfinished, so `move` it when it is whole."""
        fs, path = self.locate(rel)
        if self.is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        return fs.open_output_stream(path)

    def move(self, rel: str, destination: str) -> None:
        """Give a file another name in place of any file of that name; readers see the one or the other, whole."""
        fs, path = self.locate(rel)
        _, target = self.locate(destination)
        if self.is_local:
            sync_file(Path(path))
        fs.move(path, target)
        if self.is_local:
            sync_directories([Path(target).parent], top=Path(self.uri))

    def exists(self, rel: str) -> bool:
        """Whether a file, or a directory with a file in it, is there."""
        fs, path = self.locate(rel)
        kind = fs.get_file_info(path).type
        return bool(self.list(rel)) if kind == pafs.FileType.Directory else kind != pafs.FileType.NotFound

    def delete(self, rel: str) -> None:
        """Delete a file, or a directory with all it holds; nothing happens if there is none.

        What another process deletes meanwhile is gone, what it writes meanwhile may stay.
        """
        fs, path = self.locate(rel)
        kind = fs.get_file_info(path).type
        with suppress(FileNotFoundError):
            if kind == pafs.FileType.Directory and self.is_local:
                _delete_directory(Path(path))
            elif kind == pafs.FileType.Directory:
                fs.delete_dir(path)
            elif kind != pafs.FileType.NotFound:
                fs.delete_file(path)

    def list(self, rel: str) -> list[str]:
        """Every file below a directory, at any depth, as sorted paths from the root; none if it is absent."""
        return sorted(self.modified(rel))

    def modified(self, rel: str) -> dict[str, datetime]:
        """The same files, and when the storage says each was last written."""
        fs, path = self.locate(rel)
        found = fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
        base = path[: -len(rel)]
        return {entry.path.removeprefix(base): entry.mtime for entry in found if entry.type == pafs.FileType.File}


def _write_atomically(path: Path, data: bytes, *, top: Path) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_beside(path, data, top=top)
        except (FileNotFoundError, FileExistsError):  # another process deletes the directory with what is in it
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _write_beside(path: Path, data: bytes, *, top: Path) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        with suppress(FileNotFoundError):  # deleted meanwhile, with what is in it
            sync_directories([path.parent], top=top)
    finally:
        temporary.unlink(missing_ok=True)


def _delete_directory(path: Path) -> None:
    try:
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _delete_directory(Path(entry.path))
        else:
            Path(entry.path).unlink(missing_ok=True)
    try:
        path.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
            raise
