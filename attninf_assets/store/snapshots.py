"""One version of a table as plain data: which Parquet files it consists of, and the partition of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from attninf_assets.store.schemas import PARTITIONED_BY

__all__ = ["Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """The files of a table at one version. It never changes, so it may be kept and shared."""

    version: int
    files: pa.Table  # by path: path below the table's directory, and a column for each partition column

    @classmethod
    def of(cls, name: str, table: DeltaTable) -> "Snapshot":
        """The snapshot of the version that the handle stands on."""
        actions = pa.table(table.get_add_actions(flatten=True))
        columns = {"path": pa.chunked_array([[unquote(path) for path in actions["path"].to_pylist()]], pa.string())}
        for column in PARTITIONED_BY[name]:
            columns[column] = actions[f"partition.{column}"].cast(pa.string())
        return cls(table.version(), pa.table(columns).sort_by("path"))

    def within(self, where: Mapping[str, str]) -> pa.Table:
        """The files of the partitions with those values, in the columns of `files`."""
        files = self.files
        for column, value in where.items():
            files = files.filter(pc.equal(files[column], value))
        return files
