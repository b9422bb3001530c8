"""The Delta tables under a root: replace some partitions in one commit, read some partitions."""

import errno
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from attninf_assets.store.after_commit import settle
from attninf_assets.store.commits import TRANSACTIONS
from attninf_assets.store.compatibility import is_older, is_outdated
from attninf_assets.store.conditional_writes import require_conditional_writes
from attninf_assets.store.damage import DamagedTableError, damage_named
from attninf_assets.store.incoming_rows import conform, replayable
from attninf_assets.store.open_tables import Handle, keep, snapshot_at, storage_options, take
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import PARTITIONED_BY, TABLES
from attninf_assets.store.snapshots import Snapshot
from attninf_assets.store.sql import partition_predicate

__all__ = ["COMPRESSED", "Lake"]

_ATTEMPTS = 40
_LONGEST_PAUSE = 2.0  # seconds
COMPRESSED = WriterProperties(compression="ZSTD", max_row_group_size=131_072)  # a reader holds a few groups in memory
_LEAN = {"batch_readahead": 1, "fragment_readahead": 4}  # Arrow reads ahead 16 row groups of 4 files otherwise
# The least and greatest values of each file's columns tell nothing here, and every reader of the log would read them.
_LEAN_LOG = {"delta.dataSkippingNumIndexedCols": "0"}
_FULL = "No space left on device"
_CREATION_LOST = "Invalid table version: 0"  # delta-rs's words where the first commit is there already
_Written = TypeVar("_Written")


class Lake:
    """The tables of `schemas.TABLES` under one root, each created when first written.

    Any method raises ValueError for a table name that is not ours, for a table in storage whose columns or
    partitioning are not those of `schemas`, and for one that plain Parquet readers would misread.
    """

    def __init__(self, root: Root) -> None:
        self.root = root

    def replace(
        self,
        name: str,
        data: pa.Table | pa.RecordBatchReader,
        *,
        where: Mapping[str, str] | None = None,
        note: Mapping[str, str] | None = None,
    ) -> int:
        """Put `data` in place of the rows whose partition columns have the values in `where`, in one commit.

        An empty `where` replaces the whole table; empty data deletes. Readers see all of the old rows or all
        of the new. A conflicting commit by another writer is answered by writing again over its result, so
        concurrent replacements of one partition end with one of them, whole. A reader is spooled to local
        disk first, so it is consumed once and its size is not bounded by memory. A `note` is kept in the log with
        the commit, and with that one alone, even where the storage's answer to it was lost and it is tried again.

        Returns the version of the table. Raises ValueError, before anything is written, if the columns are not
        the table's or a row lies outside `where`, and RuntimeError if other writers win again and again.
        """
        wanted = dict(where or {})
        # never absent: delta-rs takes an overwrite without a predicate for one that no other commit can disturb
        predicate = partition_predicate(self._checked(name, wanted))
        writer, number = f"replace {predicate}", secrets.randbits(62)
        noted = None
        if note is not None:
            noted = CommitProperties(
                app_transactions=[Transaction(writer, number)], custom_metadata={**note, TRANSACTIONS: "1"}
            )
        with replayable(name, data, wanted) as replay:

            def overwrite(table: DeltaTable) -> int:
                if is_outdated(name, table):
                    write_deltalake(
                        table,
                        replay(),
                        mode="overwrite",
                        schema_mode="overwrite",
                        partition_by=PARTITIONED_BY[name],
                        writer_properties=COMPRESSED,
                    )
                elif noted is None or table.transaction_version(writer) != number:
                    write_deltalake(
                        table,
                        replay(),
                        mode="overwrite",
                        schema_mode="merge" if is_older(name, table) else None,
                        predicate=predicate,
                        writer_properties=COMPRESSED,
                        commit_properties=noted,
                    )
                return table.version()

            return self.in_turn(name, overwrite, to=f"replace {wanted or 'the table'}")

    def take_out(self, name: str, *, where: Mapping[str, str], holding: Collection[str]) -> bool:
        """Take the rows of a partition out, if it consists of just those `files` still; whether it did.

        Another writer's rows, which it may put there meanwhile, stay.
        """
        return bool(holding) and self.replace_if_still(name, TABLES[name].empty_table(), where=where, holding=holding)

    def replace_if_still(
        self, name: str, data: pa.Table, *, where: Mapping[str, str], holding: Collection[str]
    ) -> bool:
        """Put `data` in place of a partition, if that consists of just those `files` still; whether it did.

        Another writer's rows, which it may put there meanwhile, stay. Raises as `replace` does.
        """
        rows = conform(name, data, where=self._checked(name, where))
        predicate = partition_predicate(where)
        expected = {uri.removeprefix(f"{self.root.table_uri(name)}/") for uri in holding}

        def put(table: DeltaTable) -> bool:
            if set(Snapshot.of(name, table).within(where)["path"].to_pylist()) != expected:
                return False
            write_deltalake(
                table,
                rows,
                mode="overwrite",
                schema_mode="merge" if is_older(name, table) else None,
                predicate=predicate,
                writer_properties=COMPRESSED,
            )
            return True

        return self.in_turn(name, put, to=f"replace {where} as it was")

    def partitions(self, name: str, *, where: Mapping[str, str] | None = None) -> list[dict[str, str]]:
        """The partitions that hold rows now, within `where`; looked up in the log alone."""
        wanted = self._checked(name, where or {})
        snapshot = self.snapshot(name)
        if snapshot is None:
            return []
        columns = PARTITIONED_BY[name]
        return snapshot.within(wanted).select(columns).group_by(columns).aggregate([]).to_pylist()

    def append(self, name: str, rows: pa.Table, *, writer: str, number: int) -> int | None:
        """Add rows once: not again if `writer` has added rows with this `number` or a higher one before.

        So a writer may repeat what it does not know to have succeeded. Returns the version of the table, None where
        nothing was added. Raises as `replace` does.
        """
        wanted = conform(name, rows, where={})

        def add(table: DeltaTable) -> int | None:
            added = table.transaction_version(writer)
            if added is not None and added >= number:
                return None
            write_deltalake(
                table,
                wanted,
                mode="append",
                schema_mode="merge" if is_older(name, table) else None,
                writer_properties=COMPRESSED,
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(writer, number)], custom_metadata={TRANSACTIONS: "1"}
                ),
            )
            return table.version()

        return self.in_turn(name, add, to=f"add rows of {writer}")

    def replace_if_changed(
        self, name: str, data: pa.Table, *, where: Mapping[str, str] | None = None
    ) -> tuple[int | None, bool]:
        """`replace`, unless the very same rows in the same order are there already; and whether it wrote."""
        wanted = conform(name, data, where=where or {})
        if self.exists(name) and self.read(name, where=where).equals(wanted):
            return self.version(name), False
        return self.replace(name, data, where=where), True

    def read(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        where: Mapping[str, str] | None = None,
        only: pc.Expression | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """The rows whose partition columns have the values in `where`; an absent table reads as no rows.

        `only` keeps the rows for which the expression holds. `version` reads the table as it was then; ValueError
        naming it where that version never was or is vacuumed away. Raises DamagedTableError naming a file that is
        damaged or missing, as `batches` and `count` do.
        """
        wanted = self._checked(name, where or {})
        schema = TABLES[name]
        if columns is not None:
            unknown = [column for column in columns if column not in schema.names]
            if unknown:
                raise ValueError(f"table {name}: no column {unknown[0]!r}, only {schema.names}")
            schema = pa.schema([schema.field(column) for column in columns])
        with self._dataset(name, wanted, version) as dataset:
            if dataset is None:
                return schema.empty_table()
            return dataset.to_table(columns=schema.names, filter=only, **_LEAN).cast(schema)

    def batches(
        self, name: str, *, columns: Sequence[str], where: Mapping[str, str], version: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """What `read` returns, a piece at a time, so that its size is not bounded by memory."""
        with self._dataset(name, self._checked(name, where), version) as dataset:
            if dataset is not None:
                yield from dataset.to_batches(columns=list(columns), **_LEAN)

    def count(self, name: str, *, where: Mapping[str, str] | None = None, version: int | None = None) -> int:
        """How many rows `read` would return, without reading them."""
        with self._dataset(name, self._checked(name, where or {}), version) as dataset:
            return 0 if dataset is None else dataset.count_rows()

    def files(self, name: str, *, where: Mapping[str, str] | None = None, version: int | None = None) -> list[str]:
        """The Parquet files that hold those rows, now or at `version`: local paths or s3:// URIs, in a stable order."""
        wanted = self._checked(name, where or {})
        snapshot = self.snapshot(name, version=version)
        if snapshot is None:
            return []
        return [f"{self.root.table_uri(name)}/{path}" for path in snapshot.within(wanted)["path"].to_pylist()]

    def partitions_written(
        self, name: str, *, since: int | None, until: int, where: Mapping[str, str]
    ) -> list[dict[str, str]]:
        """The partitions within `where` that were written after version `since` (None: ever), as of version `until`.

        That is, those with a file at `until` that was not there at `since`, whoever wrote it, a compaction included.
        """
        wanted = self._checked(name, where)
        before = None if since is None else snapshot_at(self.root, name, since)
        files = snapshot_at(self.root, name, until).within(wanted, beyond=before)
        return files.select(PARTITIONED_BY[name]).group_by(PARTITIONED_BY[name]).aggregate([]).to_pylist()

    def version(self, name: str) -> int | None:
        """The table's current version, None if there is no table."""
        snapshot = self.snapshot(name)
        return None if snapshot is None else snapshot.version

    def origin(self, name: str) -> tuple[str, int] | None:
        """The id that the table was given at its creation, and its current version; None if there is no table."""
        snapshot = self.snapshot(name)
        return None if snapshot is None else (snapshot.table_id, snapshot.version)

    def exists(self, name: str) -> bool:
        """Whether the table was ever written."""
        return self.snapshot(name) is not None

    @contextmanager
    def _dataset(self, name: str, where: Mapping[str, str], version: int | None) -> Iterator[ds.Dataset | None]:
        """The rows, None if there is no table. What fails inside, and is for a damaged or missing file, names it."""
        snapshot = self.snapshot(name, version=version)
        if snapshot is None:
            yield None
            return
        filesystem, path = self.root.locate(f"tables/{name}")
        try:
            with damage_named(self.root, {name: snapshot}, where, _may_be_for_damage):
                yield snapshot.dataset(name, where, pafs.SubTreeFileSystem(path, filesystem))
        except DamagedTableError as error:
            newest = self.snapshot(name)
            if version is None or newest is None or not error.all_missing_from(newest):
                raise
            gone = f"{self.root.table_uri(name)}: version {version} is vacuumed away: {error.__cause__}"
            raise ValueError(gone) from error

    def in_turn(self, name: str, write: Callable[[DeltaTable], _Written], *, to: str) -> _Written:
        """Call `write` with the table as it is now, again after each commit that comes first; return what it does.

        What it committed is then on disk, so that what led to it may be deleted, and the sha256 of its files is
        recorded.
        """
        require_conditional_writes(self.root)
        begin = time.monotonic()
        for attempt in range(_ATTEMPTS):
            handle = self._taken(name)
            try:
                table = self._create(name) if handle is None else handle.table
                written = write(table)
            except CommitFailedError as error:
                conflict = error
                time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.05 * 2**attempt)))  # noqa: S311
            except DeltaError as error:
                if _FULL not in str(error):
                    raise
                place = self.root.table_uri(name)
                raise OSError(errno.ENOSPC, f"{_FULL} to {to}; the table is as it was", place) from error
            else:
                before = 0 if handle is None else handle.snapshot.version
                if handle is None or table.version() != before:
                    settle(self.root, name, str(table.metadata().id), range(before, table.version() + 1))
                if handle is not None:
                    keep(self.root, name, handle)
                return written
        waited = time.monotonic() - begin
        raise RuntimeError(
            f"{self.root.table_uri(name)}: waited {waited:.0f} s for a turn to {to}, "
            f"lost all {_ATTEMPTS} attempts to other writers"
        ) from conflict

    def _checked(self, name: str, where: Mapping[str, str]) -> Mapping[str, str]:
        if name not in TABLES:
            raise ValueError(f"table {name!r}: not one of {sorted(TABLES)}")
        for column, value in where.items():
            if column not in PARTITIONED_BY[name]:
                raise ValueError(f"table {name}: {column!r} is not one of its partitions {PARTITIONED_BY[name]}")
            if not value:
                raise ValueError(f"table {name}: partition {column} is empty")
        return where

    def _taken(self, name: str) -> Handle | None:
        self._checked(name, {})
        return take(self.root, name)

    def snapshot(self, name: str, *, version: int | None = None) -> Snapshot | None:
        """The table's files at that version, now if none is asked for; None if there is no table."""
        if version is not None:
            self._checked(name, {})
            return snapshot_at(self.root, name, version)
        handle = self._taken(name)
        if handle is None:
            return None
        snapshot = handle.snapshot
        keep(self.root, name, handle)
        return snapshot

    def _create(self, name: str) -> DeltaTable:
        try:
            return DeltaTable.create(
                self.root.table_uri(name),
                TABLES[name],
                partition_by=PARTITIONED_BY[name],
                storage_options=storage_options(self.root),
                configuration=_LEAN_LOG,
                # a creation that lost a race must not be committed again on top of the winner's table
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except DeltaError as error:
            winners = self._taken(name)
            if winners is not None:
                return winners.table
            if str(error) == _CREATION_LOST:  # S3 says 409 while another creation is under way
                raise CommitFailedError(f"{error}: the store says that another writer creates the table") from error
            raise


def _may_be_for_damage(error: Exception) -> bool:
    """Of what reading raises; a column whose name was damaged is found wanting where the rows are made to fit."""
    return isinstance(error, OSError | ValueError | pa.ArrowException)
