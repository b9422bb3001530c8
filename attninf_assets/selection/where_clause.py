"""The `where` of a selection, checked before it is run: one boolean expression over what is known of a document.

DuckDB's own parser says what was written. What may stand in it are columns, constants, comparisons and functions that
compute with their arguments alone: no subquery, no table, nothing that reads or writes a file, or sees the system.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attninf_assets.corpus.printable import shortened
from attninf_assets.corpus.written_yaml import hint

if TYPE_CHECKING:
    import duckdb

__all__ = ["check_where", "columns_in"]

_CLASSES = {
    "BETWEEN",
    "CASE",
    "CAST",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "CONSTANT",
    "FUNCTION",
    "OPERATOR",
    "TYPE",
}
_FUNCTIONS = {
    "+", "-", "*", "/", "//", "%", "||", "~~", "!~~", "~~*", "!~~*", "abs", "ceil", "coalesce", "concat", "contains",
    "exp", "floor", "greatest", "isfinite", "isnan", "least", "len", "length", "list_contains", "list_value", "ln",
    "log10", "log2", "lower", "ends_with", "regexp_full_match", "regexp_matches", "round", "sqrt", "starts_with",
    "upper", "list_max", "list_min", "list_avg",
}  # fmt: skip
_SOME = {"VARCHAR": "'x'", "BIGINT": "1", "DOUBLE": "1"}  # values for a document to try it on


def check_where(where: str, columns: Mapping[str, str]) -> frozenset[str]:
    """The columns that the expression mentions, of those given with their SQL types.

    Raises ValueError, quoting what is wrong, for anything but one boolean expression over these columns.
    """
    with _sealed_connection() as connection:
        expression = _parsed(connection, where)
        for node in _nodes(expression):
            _require_harmless(node, columns)
        mentioned = frozenset(columns_in(where))
        if not mentioned:
            raise ValueError(f"{shortened(repr(where))}: names no column, so that it says nothing of a document")
        values = ", ".join(f'{_SOME.get(kind, "NULL")}::{kind} AS "{name}"' for name, kind in columns.items())
        tried = f"SELECT (\n{where}\n) AS it FROM (SELECT {values})"
        ((_, kind, *_),) = _said(connection, f"DESCRIBE {tried}", where)
        _said(connection, tried, where)  # a constant that cannot be compared is found only where there is a row
        if kind != "BOOLEAN":
            raise ValueError(f"{shortened(repr(where))}: is of type {kind}, not true or false")
        return mentioned


def columns_in(where: str) -> set[str]:
    """The names of the columns in a parsable expression, in lower case as SQL takes them."""
    with _sealed_connection() as connection:
        nodes = list(_nodes(_parsed(connection, where)))
    return {node["column_names"][-1].lower() for node in nodes if node["class"] == "COLUMN_REF"}


def _sealed_connection() -> duckdb.DuckDBPyConnection:
    """One that reaches neither files nor the network, and whose settings no query can change."""
    import duckdb

    connection = duckdb.connect(config={"enable_external_access": "false"})
    connection.execute("SET lock_configuration = true")
    return connection


def _parsed(connection: duckdb.DuckDBPyConnection, where: str) -> dict[str, Any]:
    """The expression as a tree. Raises ValueError where it is none, or more than one."""
    template, found = (_serialized(connection, text) for text in ("true", where))
    if found.get("error"):
        raise ValueError(f"{shortened(repr(where))}: not SQL: {shortened(found['error_message'])}")
    try:
        (wanted,), (statement,) = template["statements"], found["statements"]
        (expression,) = statement["node"].pop("select_list")
        wanted["node"].pop("select_list")
    except (ValueError, LookupError):
        raise ValueError(f"{shortened(repr(where))}: not a single expression") from None
    if statement != wanted:
        raise ValueError(f"{shortened(repr(where))}: not a single expression")
    assert isinstance(expression, dict)
    return expression


def _serialized(connection: duckdb.DuckDBPyConnection, expression: str) -> dict[str, Any]:
    ((text,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT (\n{expression}\n)"]).fetchall()
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    """The expressions in a tree, itself included."""
    if isinstance(tree, list):
        for one in tree:
            yield from _nodes(one)
    elif isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for one in tree.values():
            yield from _nodes(one)


def _require_harmless(node: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    if node["class"] not in _CLASSES:
        raise ValueError(f"a {node['class'].lower()} may not stand in it; it is one condition on one document")
    if node["class"] == "COLUMN_REF":
        *qualified, name = node["column_names"]
        if qualified or name.lower() not in columns:
            raise ValueError(
                f"{shortened('.'.join(node['column_names']))}: no such column; {hint(name, list(columns))}"
            )
    if node["class"] == "FUNCTION" and (node["schema"] or node["function_name"].lower() not in _FUNCTIONS):
        raise ValueError(f"function {shortened(node['function_name'])}: may not stand in it")


def _said(connection: duckdb.DuckDBPyConnection, query: str, where: str) -> list[tuple[Any, ...]]:
    import duckdb

    try:
        return connection.execute(query).fetchall()
    except duckdb.Error as error:
        told = str(error).split("\n", maxsplit=1)[0]
        raise ValueError(f"{shortened(repr(where))}: {shortened(told)}") from None
