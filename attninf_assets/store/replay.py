"""Rows that can be written again when a commit has to be repeated."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from attninf_assets.store.conform import conform
from attninf_assets.store.schemas import TABLES

__all__ = ["Replay", "replayable"]


class Replay:
    """The rows to write, as often as asked."""

    def __init__(self, table: pa.Table | None, spool: Path | None) -> None:
        self._table = table
        self._spool = spool

    def __call__(self) -> pa.RecordBatchReader:
        if self._table is not None:
            return self._table.to_reader()
        return pa.ipc.open_stream(pa.memory_map(str(self._spool)))


@contextmanager
def replayable(name: str, data: pa.Table | pa.RecordBatchReader, where: Mapping[str, str]) -> Iterator[Replay]:
    """Rows of a table, conforming to it; a stream of them waits on local disk for as long as the context lasts."""
    if isinstance(data, pa.Table):
        yield Replay(conform(name, data, where=where), None)
        return
    with tempfile.TemporaryDirectory(prefix="attninf-replace-") as directory:
        spool = Path(directory) / "rows.arrow"
        with pa.ipc.new_stream(str(spool), TABLES[name]) as writer:
            for batch in data:
                writer.write_table(conform(name, pa.Table.from_batches([batch]), where=where))
        yield Replay(None, spool)
