"""Writes of any table, and the plainest account of what each of them leaves."""

import datetime
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

__all__ = ["Rows", "Write", "made_rows", "rows_of", "write_to"]

Rows = list[tuple[str, ...]]  # every column of every row, in order
_BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Write:
    """Rows on their way into a table, in place of those `where` says or beside all that are there."""

    table: str
    data: pa.Table
    where: Mapping[str, str] = field(default_factory=dict)
    beside: bool = False
    noted: bool = False  # with a note in the log
    spooled: bool = False  # handed over as a reader
    delay: float = 0.0  # seconds before it

    def after(self, rows: Rows) -> Rows:
        """What the table holds once this is written over `rows`."""
        columns = TABLES[self.table].names
        wanted = [(columns.index(column), repr(value)) for column, value in self.where.items()]
        kept = [row for row in rows if self.beside or any(row[place] != value for place, value in wanted)]
        return sorted(kept + rows_of(self.data))


def rows_of(table: pa.Table) -> Rows:
    """The rows as plain values, in an order of their own."""
    return sorted(tuple(map(repr, row.values())) for row in table.to_pylist())


def made_rows(name: str, mark: str, *partitions: Mapping[str, str], n: int = 2) -> pa.Table:
    """`n` rows of the table in each partition; the mark is in every other column, so that no two writes' rows mix."""
    rows = [
        {column.name: partition.get(column.name, _value(column.type, f"{mark}-{i}")) for column in TABLES[name]}
        for partition in partitions
        for i in range(n)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES[name])


def _value(type_: pa.DataType, mark: str) -> object:
    number = zlib.crc32(mark.encode())
    if pa.types.is_string(type_):
        return mark
    if pa.types.is_floating(type_):
        return number / 7
    if pa.types.is_boolean(type_):
        return number % 2 == 0
    if pa.types.is_timestamp(type_):
        return _BEGIN + datetime.timedelta(seconds=number)
    return [number, -number] if pa.types.is_list(type_) else number


def write_to(lake: Lake, write: Write, *, writer: str, number: int) -> int:
    """Write it; the version of the table that is said to hold it."""
    if write.beside:
        version = lake.append(write.table, write.data, writer=writer, number=number)
        assert version is not None
        return version
    note = {"writer": f"{writer} {number}"} if write.noted else None
    data = write.data.to_reader() if write.spooled else write.data
    return lake.replace(write.table, data, where=write.where, note=note)
