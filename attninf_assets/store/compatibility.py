"""Whether a Delta table under our path is one that we wrote, in the columns of today."""

import pyarrow as pa
from deltalake import DeltaTable

from attninf_assets.store.schemas import PARTITIONED_BY, TABLES, came_later

__all__ = ["WRITTEN_BY", "check_is_ours", "is_older", "is_outdated"]

WRITTEN_BY = {
    "documents": "raw_corpus",
    "quarantine": "raw_corpus",
    "document_features": "document_features",
    "retrieval_probes": "retrieval_probes",
    "head_scores": "retrieval_heads",
    "scores": "attention_influence_scores",
    "scoring_runs": "attention_influence_scores",
    "thresholds": "score_thresholds",
    "selected_subset": "selected_subset",
    "score_bands": "score_bands",
}
# Tables that follow from others, with a column that those of an older layout lack. Such a table reads as one without
# rows, and the next replacement gives it the layout of today.
_MADE_ANEW = {"thresholds": "selection", "selected_subset": "selection"}
_UNREADABLE_FEATURES = {"deletionVectors", "columnMapping"}  # plain Parquet readers would ignore both


def check_is_ours(name: str, uri: str, table: DeltaTable) -> None:
    """Raise ValueError naming the table's place and what differs from `schemas`, or what we could not read of it.

    What an older version of ours wrote passes: columns that came later may be absent, and ones that may hold nulls now
    may be forbidden to; the next commit adds what is lacking. So does an outdated table.
    """
    features = _UNREADABLE_FEATURES.intersection(table.protocol().reader_features or [])
    if features:
        raise ValueError(f"{uri}: the table uses {', '.join(sorted(features))}, which we cannot read")
    if is_outdated(name, table):
        return
    ours, stored = TABLES[name], pa.schema(table.schema().to_arrow())
    columns = sorted({*ours.names, *stored.names})
    differing = [column for column in columns if not _same(_field(ours, column), _field(stored, column))]
    if differing:
        details = "; ".join(f"{_kind(_field(stored, one))}, expected {_kind(_field(ours, one))}" for one in differing)
        raise ValueError(
            f"{uri}: not our table {name}: differing columns {differing}: {details}. If an older version of this "
            f"project wrote it, move it away and run: dg launch --assets {WRITTEN_BY[name]}"
        )
    partitions = table.metadata().partition_columns
    if partitions != PARTITIONED_BY[name]:
        raise ValueError(f"{uri}: partitioned by {partitions}, expected {PARTITIONED_BY[name]}")


def is_older(name: str, table: DeltaTable) -> bool:
    """Whether our table lacks columns, or the leave to hold nulls, that were added since it was written."""
    ours, stored = TABLES[name], pa.schema(table.schema().to_arrow())
    return {(field.name, field.nullable) for field in ours} != {(field.name, field.nullable) for field in stored}


def is_outdated(name: str, table: DeltaTable) -> bool:
    """Whether an older version of ours wrote the table in another layout: it holds nothing that is of use."""
    column = _MADE_ANEW.get(name)
    return column is not None and column not in pa.schema(table.schema().to_arrow()).names


def _field(schema: pa.Schema, column: str) -> pa.Field | None:
    return schema.field(column) if column in schema.names else None


def _same(ours: pa.Field | None, stored: pa.Field | None) -> bool:
    if ours is None or stored is None:
        return ours is not None and came_later(ours)
    # types compare, rather than fields: they disregard what a list's elements are called
    return ours.type == stored.type and (ours.nullable or not stored.nullable)


def _kind(field: pa.Field | None) -> str:
    if field is None:
        return "absent"
    return f"{field.type}" if field.nullable else f"{field.type} not null"
