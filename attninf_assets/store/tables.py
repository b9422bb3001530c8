"""The Delta tables under a root: replace some partitions in one commit, read some partitions."""

import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from attninf_assets.store.conform import conform
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import PARTITIONED_BY, TABLES
from attninf_assets.store.sql import partition_predicate

__all__ = ["Lake"]

_ATTEMPTS = 40
_LONGEST_PAUSE = 2.0  # seconds
_UNREADABLE_FEATURES = {"deletionVectors", "columnMapping"}  # plain Parquet readers would ignore both


class Lake:
    """The tables of `schemas.TABLES` under one root, each created when first written.

    Any method raises ValueError for a table name that is not ours, for a table in storage whose columns or
    partitioning are not those of `schemas`, and for one that plain Parquet readers would misread.
    """

    def __init__(self, root: Root) -> None:
        self.root = root

    def replace(
        self, name: str, data: pa.Table | pa.RecordBatchReader, *, where: Mapping[str, str] | None = None
    ) -> int:
        """Put `data` in place of the rows whose partition columns have the values in `where`, in one commit.

        An empty `where` replaces the whole table; empty data deletes. Readers see all of the old rows or all
        of the new. A conflicting commit by another writer is answered by writing again over its result, so
        concurrent replacements of one partition end with one of them, whole. A reader is spooled to local
        disk first, so it is consumed once and its size is not bounded by memory.

        Returns the version of the table. Raises ValueError, before anything is written, if the columns are not
        the table's or a row lies outside `where`, and RuntimeError if other writers win again and again.
        """
        wanted = dict(where or {})
        predicate = partition_predicate(self._checked(name, wanted))
        with _replayable(name, data, wanted) as replay:
            begin = time.monotonic()
            for attempt in range(_ATTEMPTS):
                table = self._open(name) or self._create(name)
                try:
                    write_deltalake(
                        table,
                        replay(),
                        mode="overwrite",
                        predicate=predicate,
                        writer_properties=WriterProperties(compression="ZSTD"),
                    )
                    return table.version()
                except CommitFailedError as error:
                    conflict = error
                    time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.05 * 2**attempt)))  # noqa: S311
        waited = time.monotonic() - begin
        raise RuntimeError(
            f"{self.root.table_uri(name)}: waited {waited:.0f} s for a turn to replace {wanted or 'the table'}, "
            f"lost all {_ATTEMPTS} attempts to other writers"
        ) from conflict

    def replace_if_changed(
        self, name: str, data: pa.Table, *, where: Mapping[str, str] | None = None
    ) -> tuple[int | None, bool]:
        """`replace`, unless the very same rows in the same order are there already; and whether it wrote."""
        wanted = conform(name, data, where=where or {})
        if self.exists(name) and self.read(name, where=where).equals(wanted):
            return self.version(name), False
        return self.replace(name, data, where=where), True

    def read(
        self, name: str, *, columns: Sequence[str] | None = None, where: Mapping[str, str] | None = None
    ) -> pa.Table:
        """The rows whose partition columns have the values in `where`; an absent table reads as no rows."""
        wanted = self._checked(name, where or {})
        schema = TABLES[name]
        if columns is not None:
            unknown = [column for column in columns if column not in schema.names]
            if unknown:
                raise ValueError(f"table {name}: no column {unknown[0]!r}, only {schema.names}")
            schema = pa.schema([schema.field(column) for column in columns])
        table = self._open(name)
        if table is None:
            return schema.empty_table()
        dataset = table.to_pyarrow_dataset(file_pruning_predicate=partition_predicate(wanted))
        return dataset.to_table(columns=schema.names).cast(schema)

    def files(self, name: str, *, where: Mapping[str, str] | None = None) -> list[str]:
        """The Parquet files that hold those rows now: local paths or s3:// URIs, in a stable order."""
        wanted = self._checked(name, where or {})
        table = self._open(name)
        if table is None:
            return []
        uris = table.file_uris(file_pruning_predicate=partition_predicate(wanted))
        # delta-rs escapes the root's path as in a URL; below the table the names are those in storage
        below = (uri.rpartition(f"/tables/{name}/")[2] for uri in uris)
        return sorted(f"{self.root.table_uri(name)}/{path}" for path in below)

    def version(self, name: str) -> int | None:
        """The table's current version, None if there is no table."""
        table = self._open(name)
        return None if table is None else table.version()

    def exists(self, name: str) -> bool:
        """Whether the table was ever written."""
        return self._open(name) is not None

    def _checked(self, name: str, where: Mapping[str, str]) -> Mapping[str, str]:
        if name not in TABLES:
            raise ValueError(f"table {name!r}: not one of {sorted(TABLES)}")
        for column, value in where.items():
            if column not in PARTITIONED_BY[name]:
                raise ValueError(f"table {name}: {column!r} is not one of its partitions {PARTITIONED_BY[name]}")
            if not value:
                raise ValueError(f"table {name}: partition {column} is empty")
        return where

    def _open(self, name: str) -> DeltaTable | None:
        self._checked(name, {})
        uri = self.root.table_uri(name)
        try:
            table = DeltaTable(uri, storage_options=dict(self.root.storage_options))
        except TableNotFoundError:
            return None
        _check_is_ours(name, uri, table)
        return table

    def _create(self, name: str) -> DeltaTable:
        try:
            return DeltaTable.create(
                self.root.table_uri(name),
                TABLES[name],
                partition_by=PARTITIONED_BY[name],
                storage_options=dict(self.root.storage_options),
                # a creation that lost a race must not be committed again on top of the winner's table
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError:
            winners = self._open(name)
            if winners is None:
                raise
            return winners


def _check_is_ours(name: str, uri: str, table: DeltaTable) -> None:
    features = _UNREADABLE_FEATURES.intersection(table.protocol().reader_features or [])
    if features:
        raise ValueError(f"{uri}: the table uses {', '.join(sorted(features))}, which we cannot read")
    ours, stored = TABLES[name], pa.schema(table.schema().to_arrow())
    columns = sorted({*ours.names, *stored.names})
    differing = [column for column in columns if not _same(_field(ours, column), _field(stored, column))]
    if differing:
        details = "; ".join(f"{_kind(_field(stored, one))}, expected {_kind(_field(ours, one))}" for one in differing)
        raise ValueError(f"{uri}: not our table {name}: differing columns {differing}: {details}")
    partitions = table.metadata().partition_columns
    if partitions != PARTITIONED_BY[name]:
        raise ValueError(f"{uri}: partitioned by {partitions}, expected {PARTITIONED_BY[name]}")


def _field(schema: pa.Schema, column: str) -> pa.Field | None:
    return schema.field(column) if column in schema.names else None


def _same(ours: pa.Field | None, stored: pa.Field | None) -> bool:
    if ours is None or stored is None:
        return False
    # types compare, rather than fields: they disregard what a list's elements are called
    return ours.type == stored.type and ours.nullable == stored.nullable


def _kind(field: pa.Field | None) -> str:
    if field is None:
        return "absent"
    return f"{field.type}" if field.nullable else f"{field.type} not null"


class _Replay:
    """The rows to write, as often as asked."""

    def __init__(self, table: pa.Table | None, spool: Path | None) -> None:
        self._table = table
        self._spool = spool

    def __call__(self) -> pa.RecordBatchReader:
        if self._table is not None:
            return self._table.to_reader()
        return pa.ipc.open_stream(pa.memory_map(str(self._spool)))


@contextmanager
def _replayable(name: str, data: pa.Table | pa.RecordBatchReader, where: Mapping[str, str]) -> Iterator[_Replay]:
    if isinstance(data, pa.Table):
        yield _Replay(conform(name, data, where=where), None)
        return
    with tempfile.TemporaryDirectory(prefix="attninf-replace-") as directory:
        spool = Path(directory) / "rows.arrow"
        with pa.ipc.new_stream(str(spool), TABLES[name]) as writer:
            for batch in data:
                writer.write_table(conform(name, pa.Table.from_batches([batch]), where=where))
        yield _Replay(None, spool)
