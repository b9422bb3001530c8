"""What the catalog says of every asset alike: who owns it, where and as what it is stored, what its columns mean."""

import html
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa

from attninf_assets.mixture.manifest import CORPUS_COLUMNS, CORPUS_DIRECTORY, CORPUS_SCHEMA
from attninf_assets.store.schemas import TABLES, description

OWNERS = ["team:pretraining-data"]

# The storage kind is a tag, which the UI reads, and table metadata, by which Dagster knows a table again.
_STORAGE_KIND = "dagster/storage_kind"
DELTA_TABLE = {_STORAGE_KIND: "deltalake"}
PARQUET_FILES = {_STORAGE_KIND: "parquet"}
HUGGING_FACE_DIRECTORY = {_STORAGE_KIND: "huggingface"}
# On what runs a model: `tag:cost=device_time` selects it in the UI.
DEVICE_TIME = {"cost": "device_time"}


def table_metadata(table: str) -> dict[str, Any]:
    """Name, storage and columns of a Delta table. The name is its path below the root, the same in every deployment;
    the whole address is the `dagster/uri` of each materialization."""
    schema = TABLES[table]
    return {
        "dagster/table_name": f"tables/{table}",
        **DELTA_TABLE,
        **_column_schema(schema, {field.name: description(field) for field in schema}),
    }


def corpus_metadata() -> dict[str, Any]:
    """Name, storage and columns of the training corpus, as `table_metadata` has them of a table."""
    return {
        "dagster/table_name": CORPUS_DIRECTORY,
        **PARQUET_FILES,
        **_column_schema(CORPUS_SCHEMA, CORPUS_COLUMNS),
    }


def _column_schema(schema: pa.Schema, meanings: Mapping[str, str]) -> dict[str, dg.TableSchema]:
    """The columns with their meanings, for the UI's Columns tab."""
    columns = [
        dg.TableColumn(
            field.name,
            str(field.type),
            description=html.escape(meanings[field.name], quote=False),  # the UI reads it as Markdown
            constraints=dg.TableColumnConstraints(nullable=field.nullable),
        )
        for field in schema
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns)}
