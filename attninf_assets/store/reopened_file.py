"""Source files that may stay open for longer than the credentials last with which they were opened."""

import io
from collections.abc import Callable, Mapping

import pyarrow as pa

from attninf_assets.store.filesystems import StorageOptions, filesystem_for

__all__ = ["open_source"]


def open_source(uri: str, storage_options: StorageOptions) -> pa.NativeFile:
    """The file at a local path or a URI, for reading. On S3 it goes on being read when credentials are renewed."""
    if callable(storage_options) and uri.startswith("s3://"):
        return pa.PythonFile(_Lasting(uri, storage_options), mode="r")
    filesystem, path = filesystem_for(uri, storage_options)
    return filesystem.open_input_file(path)


class _Lasting(io.RawIOBase):
    """A file that is opened anew, at the same place in it, wherever the options are no longer what they were."""

    def __init__(self, uri: str, options: Callable[[], Mapping[str, str]]) -> None:
        super().__init__()
        self._uri, self._options = uri, options
        self._position = 0
        self._opened_with = options()
        self._file = self._open()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read at the position until the buffer is full or the file ends; returns the number of bytes."""
        data = self._current().read_at(len(buffer), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to another position; returns it."""
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}
        self._position = offset + (self._current().size() if whence == io.SEEK_END else begin[whence])
        return self._position

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            self._file.close()
        super().close()

    def _current(self) -> pa.NativeFile:
        options = self._options()
        if options != self._opened_with:
            self._file.close()
            self._opened_with = options
            self._file = self._open()
        return self._file

    def _open(self) -> pa.NativeFile:
        filesystem, path = filesystem_for(self._uri, self._opened_with)
        return filesystem.open_input_file(path)
