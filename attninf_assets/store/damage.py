"""Files of a table that are not what its log says, found by looking at the files themselves.

The pages of our Parquet files carry no checksums: delta-rs writes none, and its ZSTD frames have none either. Four in
ten bits flipped in pages decode to other values, and no reader notices. So what a file holds is known again by its
sha256, which is recorded right after the commit (see `log_copies`).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from attninf_assets.store.log_copies import sha256_of
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import PARTITIONED_BY, TABLES
from attninf_assets.store.snapshots import Snapshot

__all__ = ["CHANGED", "MISSING", "Damage", "DamagedTableError", "damage_named", "examine"]

CHANGED = "its bytes are not those that were recorded: the sha256 differs"
MISSING = "the file is missing"


@dataclass(frozen=True)
class Damage:
    """A file under the root that is not what was written."""

    path: str  # below the root
    what: str  # is wrong
    table: str | None = None  # whose data or log the file is of, or whose files it records; None of no table
    partition: Mapping[str, str] | None = None  # None where the table has none, and for files that are not its data
    of_earlier_versions: bool = False  # alone: the newest version of the table does not have the file

    @property
    def file(self) -> str:
        """Below the table's directory."""
        return self.path.removeprefix(f"tables/{self.table}/")

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class DamagedTableError(ValueError):
    """A table cannot be read because of files that are damaged or missing. Waiting does not help, a repair does."""

    def __init__(self, root: Root, damages: list[Damage]) -> None:
        first, *others = damages
        more = f", and {len(others):,} more" if others else ""
        super().__init__(
            f"{root.uri}/tables/{first.table}: damaged: {first.file}: {first.what}{more}; `attninf repair` shows what "
            "mends it, and with --apply does it"
        )
        self.damages = damages

    def all_missing_from(self, newest: Snapshot) -> bool:
        """Whether the newest version of the table has none of the files."""
        return not set(newest.files["path"].to_pylist()).intersection(damage.file for damage in self.damages)


def examine(directory: pafs.FileSystem, name: str, file: Mapping[str, Any], *, known: str | None) -> tuple[str, str]:
    """The sha256 of a table's file, and what is wrong with it; the one or the other is empty.

    `file` is a row of `Snapshot.files`, `directory` the table's. A file whose sha256 is `known` is read once, in
    pieces, and compared with it; another one is read whole and every page of it decoded. Raises OSError where the
    storage does not answer: that says nothing about the file.
    """
    info = directory.get_file_info(file["path"])
    if info.type != pafs.FileType.File:
        return "", MISSING
    if info.size != file["size"]:
        return "", f"{info.size:,} bytes, the log says {file['size']:,}"
    if known is not None:
        found = sha256_of(directory, file["path"])
        return (found, "") if found == known else ("", CHANGED)
    with directory.open_input_stream(file["path"]) as stream:
        data = stream.read_buffer()
    try:
        n_rows = _decoded_rows(name, data)
    except Exception as error:  # decoding in memory: whatever it raises is the data's fault
        return "", f"it cannot be decoded: {type(error).__name__}: {error}"
    if file["n_rows"] is not None and n_rows != file["n_rows"]:
        return "", f"{n_rows:,} rows, the log says {file['n_rows']:,}"
    return hashlib.sha256(data).hexdigest(), ""


@contextmanager
def damage_named(
    root: Root, snapshots: Mapping[str, Snapshot], where: Mapping[str, str], suspicious: Callable[[Exception], bool]
) -> Iterator[None]:
    """Where this block, which reads those partitions, fails with something `suspicious`, look at their files.

    Raises DamagedTableError naming those that are damaged, if any are; else the failure stands as it was raised.
    """
    try:
        yield
    except Exception as error:
        if not suspicious(error):
            raise
        damages = [damage for name, snapshot in snapshots.items() for damage in _damages(root, name, snapshot, where)]
        if not damages:
            raise
        raise DamagedTableError(root, damages) from error


def _damages(root: Root, name: str, snapshot: Snapshot, where: Mapping[str, str]) -> Iterator[Damage]:
    filesystem, path = root.locate(f"tables/{name}")
    directory = pafs.SubTreeFileSystem(path, filesystem)
    for file in snapshot.within(where).to_pylist():
        _, wrong = examine(directory, name, file, known=None)
        if wrong:
            yield Damage(f"tables/{name}/{file['path']}", wrong, name, snapshot.partition(name, file))


def _decoded_rows(name: str, data: pa.Buffer) -> int:
    """How many rows the file holds, each page of each column decoded. Raises where that does not succeed."""
    parquet = pq.ParquetFile(pa.BufferReader(data))
    wanted = [column for column in TABLES[name].names if column not in PARTITIONED_BY[name]]
    if parquet.schema_arrow.names != wanted:
        raise ValueError(f"columns {parquet.schema_arrow.names}, expected {wanted}")
    n_rows = 0
    for group in range(parquet.num_row_groups):
        rows = parquet.read_row_group(group)
        rows.validate(full=True)
        n_rows += len(rows)
    return n_rows
