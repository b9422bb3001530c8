"""What scoring costs, and what it was thought to cost."""

import duckdb
import pyarrow as pa

from attninf_assets.scores.cost import Approval, Cost, Estimate, cost_of, predicted_and_actual
from attninf_assets.store.schemas import TABLES
from benchmarks.rigs.tables_of_scores import run_of


def test_the_cost_is_of_the_time_taken_whatever_was_scored() -> None:
    assert cost_of(7200, 1800.0, price_per_device_hour=3.0) == Cost(4.0, 0.5, 1.5)
    assert cost_of(0, 1800.0, price_per_device_hour=3.0) == Cost(0.0, 0.5, 1.5)
    assert cost_of(0, 0.0, price_per_device_hour=3.0) == Cost(0.0, 0.0, 0.0)


def test_a_preview_is_compared_with_what_its_selector_took_since() -> None:
    runs = pa.concat_tables([run_of("web", "a", 1), run_of("web", "b", 2), run_of("web", "b", 3)])
    rows = runs.to_pylist()
    assert {row["selector_fingerprint"] for row in rows} == {"f"}
    estimate = Estimate(partitions=3, documents=9, n_bytes=100, tokens=None, device_hours=0.5, money=1.0)
    before = Approval("f", "1970-01-01T00:00:00+00:00", estimate, approved=True)
    after = Approval("f", "2199-01-01T00:00:00+00:00", estimate, approved=True)
    another = Approval("g", "1970-01-01T00:00:00+00:00", estimate, approved=True)
    with duckdb.connect() as connection:
        connection.register("scoring_runs", runs.cast(TABLES["scoring_runs"]))
        assert predicted_and_actual(connection, before) == {
            "partitions": (3, 2),
            "documents": (9, sum(row["n_scored"] for row in rows)),
            "tokens": (None, sum(row["tokens_scored"] for row in rows)),
            "device_hours": (0.5, sum(row["seconds"] for row in rows) / 3600),
        }
        for nothing in (after, another):
            assert [actual for _, actual in predicted_and_actual(connection, nothing).values()] == [0, 0, 0, 0.0]
