"""What scoring costs, and what it was thought to cost."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from attninf_assets.scores.cost import Approval, Cost, Estimate, cost_of, predicted_and_actual, read_approval
from attninf_assets.store.json_records import unsealed
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from benchmarks.rigs.tables_of_scores import run_of

ESTIMATE = Estimate(partitions=3, documents=9, n_bytes=100, tokens=None, device_hours=0.5, money=1.0)


def test_the_last_preview_is_read_back_and_of_its_own_selector_alone(root: Root) -> None:
    approval = Approval("f", "2026-01-01T00:00:00+00:00", ESTIMATE, approved=False)
    approval.publish(root)
    replace(approval, approved=True).publish(root)
    assert read_approval(root, "f") == replace(approval, approved=True)
    assert read_approval(root, "g") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: b"",
        lambda stored: b"[]",
        lambda stored: json.dumps(stored).encode()[:-5],
        lambda stored: json.dumps(stored | {"approved": "false"}).encode(),
        lambda stored: json.dumps(stored | {"estimate": {}}).encode(),
        lambda stored: json.dumps(stored | {"selector_fingerprint": "g"}).encode(),
    ],
)
def test_a_damaged_preview_approves_nothing_and_is_named(root: Root, damage: Callable[[dict[str, Any]], bytes]) -> None:
    Approval("f", "2026-01-01T00:00:00+00:00", ESTIMATE, approved=True).publish(root)
    root.write_bytes("previews/f.json", damage(json.loads(unsealed(root.read_bytes("previews/f.json")))))
    with pytest.raises(ValueError, match=r"previews/f\.json: damaged, materialize rescoring_preview again: "):
        read_approval(root, "f")


def test_the_cost_is_of_the_time_taken_whatever_was_scored() -> None:
    assert cost_of(7200, 1800.0, price_per_device_hour=3.0) == Cost(4.0, 0.5, 1.5)
    assert cost_of(0, 1800.0, price_per_device_hour=3.0) == Cost(0.0, 0.5, 1.5)
    assert cost_of(0, 0.0, price_per_device_hour=3.0) == Cost(0.0, 0.0, 0.0)


def test_a_preview_is_compared_with_what_its_selector_took_since() -> None:
    runs = pa.concat_tables([run_of("web", "a", 1), run_of("web", "b", 2), run_of("web", "b", 3)])
    rows = runs.to_pylist()
    assert {row["selector_fingerprint"] for row in rows} == {"f"}
    before = Approval("f", "1970-01-01T00:00:00+00:00", ESTIMATE, approved=True)
    after = Approval("f", "2199-01-01T00:00:00+00:00", ESTIMATE, approved=True)
    another = Approval("g", "1970-01-01T00:00:00+00:00", ESTIMATE, approved=True)
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
