"""One version of a table as plain data: which Parquet files it consists of, and the partition of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import DeltaTable

from attninf_assets.store.compatibility import is_outdated
from attninf_assets.store.schemas import PARTITIONED_BY, TABLES

__all__ = ["Snapshot"]

_PARQUET = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))


@dataclass(frozen=True)
class Snapshot:
    """The files of a table at one version. It never changes, so it may be kept and shared."""

    version: int
    table_id: str  # given at its creation
    files: pa.Table  # by path: path below the table's directory, size in bytes, n_rows if known, partition columns

    @classmethod
    def of(cls, name: str, table: DeltaTable) -> "Snapshot":
        """The snapshot of the version that the handle stands on; of an outdated table, without files."""
        if is_outdated(name, table):
            kinds = {"path": pa.string(), "size": pa.int64(), "n_rows": pa.int64()}
            kinds |= dict.fromkeys(PARTITIONED_BY[name], pa.string())
            return cls(table.version(), str(table.metadata().id), pa.schema(kinds.items()).empty_table())
        actions = pa.table(table.get_add_actions(flatten=True))
        columns = {"path": pa.chunked_array([[unquote(path) for path in actions["path"].to_pylist()]], pa.string())}
        columns["size"] = actions["size_bytes"].cast(pa.int64())
        if "num_records" in actions.column_names:
            columns["n_rows"] = actions["num_records"].cast(pa.int64())
        else:  # the log of another writer, or of a table without files
            columns["n_rows"] = pa.chunked_array([pa.nulls(len(actions), pa.int64())])
        for column in PARTITIONED_BY[name]:
            columns[column] = actions[f"partition.{column}"].cast(pa.string())
        return cls(table.version(), str(table.metadata().id), pa.table(columns).sort_by("path"))

    def within(self, where: Mapping[str, str], *, beyond: "Snapshot | None" = None) -> pa.Table:
        """The files of the partitions with those values, in the columns of `files`; only those not in `beyond`."""
        files = self.files
        for column, value in where.items():
            files = files.filter(pc.equal(files[column], value))
        if beyond is not None:
            files = files.filter(pc.invert(pc.is_in(files["path"], value_set=beyond.files["path"])))
        return files

    @staticmethod
    def partition(name: str, file: Mapping[str, Any]) -> dict[str, str] | None:
        """The partition of a row of `files`; None where the table has no partitions."""
        return {column: file[column] for column in PARTITIONED_BY[name]} or None

    def dataset(self, name: str, where: Mapping[str, str], directory: pafs.FileSystem) -> ds.Dataset:
        """The rows in those files, in the columns of `schemas.TABLES[name]`, read below the table's directory."""
        fragments = [
            _PARQUET.make_fragment(
                file["path"], filesystem=directory, partition_expression=_holds(self.partition(name, file) or {})
            )
            for file in self.within(where).to_pylist()
        ]
        return ds.FileSystemDataset(fragments, TABLES[name], _PARQUET, directory)


def _holds(values: Mapping[str, str]) -> pc.Expression:
    """That a row's columns have those values."""
    return reduce(and_, (pc.field(column) == value for column, value in values.items()), pc.scalar(True))
