"""Values inside SQL text: Delta predicates and file lists take no parameters."""

from collections.abc import Mapping

__all__ = ["literal", "partition_predicate"]


def literal(value: str) -> str:
    """The value as a SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def partition_predicate(where: Mapping[str, str]) -> str:
    """The predicate for rows with those column values; one that is always true where nothing is asked."""
    return " AND ".join(f'"{column}" = {literal(value)}' for column, value in where.items()) or "true"
