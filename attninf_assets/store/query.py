"""DuckDB over the tables of a lake, local or on S3.

`duckdb` is imported where a connection is made, and elsewhere named in annotations that nothing evaluates. So an idle
code server has none, and a process that used it ends in peace. Functions that torch registers with its dispatcher are
never released. They keep Python's registry of `typing.overload` past the interpreter's end; Dagster's decorators are in
it and lead to functions of ours, and an annotation of one that held `DuckDBPyConnection` itself would keep DuckDB's
types as well, which its bindings report as leaked, line by line.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.fs as pafs
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.spec import AbstractFileSystem

from attninf_assets.store.damage import damage_named
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import PARTITIONED_BY, TABLES, came_later
from attninf_assets.store.scratch import scratch_of_process
from attninf_assets.store.snapshots import Snapshot
from attninf_assets.store.sql import literal
from attninf_assets.store.tables import Lake

if TYPE_CHECKING:
    import duckdb

__all__ = ["SQL_TYPES", "connect", "count_rows", "rows_digest"]

_SCHEME = "attninf"  # not s3: DuckDB would reach for its own extension

SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.list_(pa.int64()): "BIGINT[]",
    pa.list_(pa.float64()): "DOUBLE[]",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}


class _OfRoot(ArrowFSWrapper):
    """The root's filesystem, asked for anew for every file that is opened."""

    protocol = _SCHEME
    cachable = False  # two connections may reach different servers
    root_marker = ""

    def __init__(self, root: Root) -> None:
        AbstractFileSystem.__init__(self)  # not the wrapper's own, which keeps one filesystem for good
        self._root = root

    @property
    def fs(self) -> pafs.FileSystem:
        return self._root.filesystem()[0]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:  # the inherited one takes the bucket for a host, and drops it
        return path.removeprefix(f"{_SCHEME}://").rstrip("/")


@contextmanager
def connect(
    source: Root | Lake,
    *tables: str,
    where: Mapping[str, str] | None = None,
    versions: Mapping[str, int] | None = None,
    later: Collection[str] = (),
    memory_limit: str | None = None,
    threads: int | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory DuckDB with a view of each named table as it is now, in the columns of `schemas.TABLES`.

    Columns that came later are left out: files that were written before lack them, and DuckDB would have to open every
    file of the table to find out which do. `Lake.read` has them, and so have the views of the tables in `later`.

    With `where`, the views hold the partitions with those values and nothing else, and cost no more than their files.
    A table named in `versions` is shown as it was at that version; ValueError where that cannot be read any more. The
    views keep showing the versions found here, whatever is written later; but those of several tables are looked up
    one after the other, so that a commit may come between them. A table without rows is an empty view. `memory_limit`
    is in DuckDB's words ("2GB"); what does not fit spills to the temporary directory. The connection is closed at the
    end of the block. Raises DamagedTableError naming the table and the file where a query in the block fails because a
    file is damaged or missing.
    """
    import duckdb

    lake, wanted = source if isinstance(source, Lake) else Lake(source), where or {}
    spill = scratch_of_process("duckdb") / uuid.uuid4().hex
    snapshots: dict[str, Snapshot] = {}
    with duckdb.connect() as connection, damage_named(lake.root, snapshots, wanted, _may_be_for_damage):
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        connection.execute(f"SET temp_directory = {literal(str(spill))}")
        if memory_limit is not None:
            connection.execute(f"SET memory_limit = {literal(memory_limit)}")
        if threads is not None:
            connection.execute(f"SET threads = {int(threads)}")
        if not lake.root.is_local:
            connection.register_filesystem(_OfRoot(lake.root))
        for name in tables:
            version = (versions or {}).get(name)
            files = lake.files(name, where=wanted, version=version)
            if (snapshot := lake.snapshot(name, version=version)) is not None:
                snapshots[name] = snapshot
            connection.execute(f'CREATE VIEW "{name}" AS {_view(name, files, later=name in later)}')
        yield connection


def _may_be_for_damage(error: Exception) -> bool:
    """DuckDB says of a damaged file by several errors that it is, by its barest one too."""
    import duckdb

    kinds = (
        duckdb.BinderException,  # a column whose name was damaged
        duckdb.InternalException,
        duckdb.InvalidInputException,
        duckdb.IOException,
        duckdb.SerializationException,
    )
    return type(error) is duckdb.Error or isinstance(error, kinds)


def _view(name: str, files: Sequence[str], *, later: bool) -> str:
    types = {field.name: SQL_TYPES[field.type] for field in TABLES[name] if later or not came_later(field)}
    if not files:
        nothing = ", ".join(f'NULL::{sql} AS "{column}"' for column, sql in types.items())
        return f"SELECT {nothing} WHERE false"
    columns = ", ".join(f'"{column}"::{sql} AS "{column}"' for column, sql in types.items())
    listed = ", ".join(literal(_reachable(uri)) for uri in files)
    hive = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in PARTITIONED_BY[name])
    partitions = f"hive_partitioning = true, hive_types = {{{hive}}}" if hive else "hive_partitioning = false"
    if not later:
        return f"SELECT {columns} FROM read_parquet([{listed}], {partitions})"
    absent = ", ".join(f'NULL::{sql} AS "{column}"' for column, sql in types.items())  # where no file has a column
    return (
        f"SELECT {columns} FROM (FROM read_parquet([{listed}], {partitions}, union_by_name = true) "
        f"UNION ALL BY NAME SELECT {absent} WHERE false)"
    )


def _reachable(uri: str) -> str:
    """The file as DuckDB finds it: S3 goes through our own filesystem. (No name holds a pattern: see Root.at.)"""
    return uri.replace("s3://", f"{_SCHEME}://", 1) if uri.startswith("s3://") else uri


def count_rows(connection: duckdb.DuckDBPyConnection, what: str) -> int:
    """How many rows there are in a view, or in `view WHERE condition`."""
    (row,) = connection.execute(f"SELECT count(*) FROM {what}").fetchall()
    return int(row[0])


def rows_digest(connection: duckdb.DuckDBPyConnection, view: str, columns: Sequence[str]) -> str:
    """Changes when any row of the view does in those columns, whatever the rows' order: their number, and the XOR of
    the lower halves of their md5. Needs no memory."""
    ((count, digest),) = connection.execute(
        f"SELECT count(*), bit_xor(md5_number_lower(concat_ws(chr(0), {', '.join(columns)}))) FROM {view}"
    ).fetchall()
    return f"{count}:{digest}"
