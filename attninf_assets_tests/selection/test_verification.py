"""What is wrong with a selection is told by domain."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from attninf_assets.selection.definitions import Budget, Keep, SelectionDefinition
from attninf_assets.selection.thresholds import find_thresholds, selected
from attninf_assets.selection.verification import domains_not_as_counted, domains_not_at_their_fraction
from attninf_assets.store.schemas import TABLES
from benchmarks.rigs.tables_of_scores import scores_of


@pytest.fixture(params=["documents", "tokens"])
def connection(request: pytest.FixtureRequest) -> Iterator[duckdb.DuckDBPyConnection]:
    """Views of the right scores, thresholds and selection of three domains."""
    budget: Budget = request.param
    with duckdb.connect() as connection:
        scores = pa.concat_tables(scores_of(domain, "a", 10) for domain in ("code", "math", "web"))
        connection.register("scores", scores)
        definition = SelectionDefinition(keep=Keep(fraction=0.3, of=budget))
        connection.register("thresholds", find_thresholds(connection, selector_fingerprint="f", definition=definition))
        subset = selected(connection, selector_fingerprint="f").read_all()
        connection.register("selected_subset", subset)
        yield connection


def _change(connection: duckdb.DuckDBPyConnection, view: str, **values: Any) -> None:
    """Other values in the view's rows of the domain `math`."""
    rows = connection.sql(f"SELECT * FROM {view}").to_arrow_table().to_pylist()
    changed = [row | values if row["domain"] == "math" else row for row in rows]
    connection.register(view, pa.Table.from_pylist(changed, schema=TABLES[view]))


def test_nothing_is_wrong_with_what_was_found(connection: duckdb.DuckDBPyConnection) -> None:
    assert domains_not_at_their_fraction(connection) == []
    assert domains_not_as_counted(connection, selector_fingerprint="f") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"fraction": 0.5},
        {"fraction": 0.1},
        {"threshold_score": 0.5},
        {"threshold_doc_id": "math-a-99"},
        {"threshold_doc_id": "math-a-4"},
        {"n_documents": 11},
        {"n_selected": 9},
        {"tokens_total": 1},
        {"tokens_selected": 1},
        {"selector_fingerprint": "of nothing that was scored"},
    ],
)
def test_a_domain_whose_threshold_is_wrong_is_named(
    connection: duckdb.DuckDBPyConnection, wrong: dict[str, Any]
) -> None:
    _change(connection, "thresholds", **wrong)
    assert domains_not_at_their_fraction(connection) == ["math"]


def test_a_domain_whose_selection_is_not_what_was_counted_is_named(connection: duckdb.DuckDBPyConnection) -> None:
    subset = connection.sql("SELECT * FROM selected_subset").to_arrow_table()
    math, others = (
        connection.sql(f"SELECT * FROM selected_subset WHERE domain {is_math} 'math'").to_arrow_table()
        for is_math in ("=", "<>")
    )
    for wrong in (
        others,
        pa.concat_tables([others, math.slice(1)]),
        pa.concat_tables([subset, math.slice(0, 1)]),
        pa.concat_tables([others, math.slice(1), math.slice(1, 1)]),
    ):
        connection.register("selected_subset", wrong)
        assert domains_not_as_counted(connection, selector_fingerprint="f") == ["math"]
    connection.register("selected_subset", subset)
    _change(connection, "selected_subset", selector_fingerprint="g")
    assert domains_not_as_counted(connection, selector_fingerprint="f") == ["math"]
    assert domains_not_as_counted(connection, selector_fingerprint="g") == ["code", "web"]
