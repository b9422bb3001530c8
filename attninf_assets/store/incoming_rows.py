"""Rows on their way into a table: exactly its columns and types, inside their partition, and there for another try."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.store.schemas import PARTITIONED_BY, TABLES, came_later
from attninf_assets.store.scratch import scratch_directory

__all__ = ["conform", "replayable"]


@contextmanager
def replayable(
    name: str, data: pa.Table | pa.RecordBatchReader, where: Mapping[str, str]
) -> Iterator[Callable[[], pa.RecordBatchReader]]:
    """Conforming rows that can be read from the start as often as asked: each call gives a reader of them all.

    A table stays in memory; a reader is consumed once, and its rows wait on local disk for as long as the context
    lasts. Raises as `conform` does, before anything can be read.
    """
    if isinstance(data, pa.Table):
        yield conform(name, data, where=where).to_reader
        return
    with scratch_directory("replace") as directory:
        spool = directory / "rows.arrow"
        with pa.ipc.new_stream(str(spool), TABLES[name]) as writer:
            for batch in data:
                writer.write_table(conform(name, pa.Table.from_batches([batch]), where=where))
        yield lambda: pa.ipc.open_stream(pa.memory_map(str(spool)))


def conform(name: str, rows: pa.Table, *, where: Mapping[str, str]) -> pa.Table:
    """The rows with the columns of `schemas.TABLES[name]`, in order, cast where no value is lost.

    Columns that came later are null where the rows lack them.

    Raises ValueError naming the table, the column and the offending value for a column missing or unknown,
    a value that does not fit, a null where none may be, an empty partition value, and a row outside `where`.
    """
    schema = TABLES[name]
    for field in schema:
        if came_later(field) and field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    missing = [column for column in schema.names if column not in rows.column_names]
    unknown = [column for column in rows.column_names if column not in schema.names]
    if missing or unknown or len(rows.column_names) != len(schema.names):
        raise ValueError(f"table {name}: missing columns {missing}, unknown or repeated columns {unknown}")
    rows = pa.table({field.name: _column(name, rows.column(field.name), field) for field in schema}, schema=schema)
    for column in PARTITIONED_BY[name]:
        values = pc.unique(rows.column(column)).to_pylist()
        if "" in values:
            raise ValueError(f"table {name}, column {column}: a partition value is empty")
        outside = [value for value in values if column in where and value != where[column]]
        if outside:
            raise ValueError(
                f"table {name}, column {column}: a row of {outside[0]!r} among those to replace {where[column]!r}"
            )
    return rows


def _column(name: str, values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if not field.nullable and values.null_count:
        raise ValueError(f"table {name}, column {field.name}: {values.null_count} null values, none are allowed")
    try:
        return values.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"table {name}, column {field.name}: {error}") from error
