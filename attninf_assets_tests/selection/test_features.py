"""Selections that use what is known of documents beside their scores."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.selection.definitions import DomainRule, Keep, SelectionDefinition
from attninf_assets.selection.eligible import Eligible, check_definition, connect_for
from attninf_assets.selection.ordering import Fit, fit
from attninf_assets.selection.thresholds import find_thresholds, selected
from attninf_assets.selection.verification import domains_not_as_counted, domains_not_at_their_fraction
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets_tests.selection.test_orders import Row, found, rows_of
from benchmarks.rigs.tables_of_scores import scores_of

_NAMES = ("repetition", "repeated_lines", "zstd_ratio", "alphabetic")
FEATURES = pa.schema(
    [(name, pa.string()) for name in ("doc_id", "domain", "shard", "text_sha256")]
    + [("n_bytes", pa.int64())]
    + [(name, pa.float64()) for name in _NAMES]
)


@pytest.fixture(autouse=True)
def _table_of_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, "document_features", FEATURES)


def _features(rows: list[Row], seed: int = 0) -> list[Row]:
    draw = np.random.default_rng(seed)
    ids = [{name: row[name] for name in ("doc_id", "domain", "shard", "text_sha256")} for row in rows]
    return [one | {"n_bytes": 9} | dict(zip(_NAMES, draw.uniform(size=4).tolist(), strict=True)) for one in ids]


def _scores(n: int, seed: int = 0) -> list[Row]:
    draw = np.random.default_rng(seed)
    return rows_of({"web": [(float(draw.normal()), int(draw.integers(1, 5_000))) for _ in range(n)]})


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    rows = _scores(60)
    with duckdb.connect() as connection:
        _register(connection, rows, _features(rows))
        yield connection


def _register(connection: duckdb.DuckDBPyConnection, rows: list[Row], features: list[Row]) -> None:
    connection.register("scores", pa.Table.from_pylist(rows, schema=TABLES["scores"]))
    connection.register("document_features", pa.Table.from_pylist(features, schema=FEATURES))


def _selected(connection: duckdb.DuckDBPyConnection, definition: SelectionDefinition) -> tuple[list[Row], list[Row]]:
    thresholds = find_thresholds(connection, selector_fingerprint="f", definition=definition)
    connection.register("thresholds", thresholds)
    subset = selected(connection, selector_fingerprint="f").read_all()
    connection.register("selected_subset", subset)
    assert domains_not_at_their_fraction(connection) == []
    assert domains_not_as_counted(connection, selector_fingerprint="f") == []
    return thresholds.to_pylist(), subset.to_pylist()


def _fit(connection: duckdb.DuckDBPyConnection, definition: SelectionDefinition) -> list[Fit]:
    eligible = Eligible(definition, "f")
    eligible.prepare(connection)
    return fit(connection, definition, eligible.rows)


def test_a_filter_keeps_the_fraction_of_what_passes_it(connection: duckdb.DuckDBPyConnection) -> None:
    definition = SelectionDefinition(
        where="repetition < 0.5 AND n_tokens >= 100 OR false",
        keep=Keep(fraction=0.25, of="documents"),
        domains={"web": DomainRule(max_tokens=4_000)},
    )
    check_definition("x", definition, place="here")
    (threshold,), subset = _selected(connection, definition)
    features = {row["doc_id"]: row for row in _features(_scores(60))}
    eligible = [
        row for row in _scores(60) if features[row["doc_id"]]["repetition"] < 0.5 and 100 <= row["n_tokens"] <= 4_000
    ]
    best = sorted(eligible, key=lambda row: row["score"], reverse=True)[: math.ceil(len(eligible) / 4)]
    assert {row["doc_id"] for row in subset} == {row["doc_id"] for row in best}
    assert (threshold["n_documents"], threshold["n_eligible"]) == (60, len(eligible))
    assert threshold["tokens_eligible"] == sum(row["n_tokens"] for row in eligible)


def test_a_document_without_features_for_its_text_is_told_of_with_what_to_materialize(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    rows = _scores(60)
    features = _features(rows)
    features[0]["text_sha256"] = "another"
    _register(connection, rows, features[:50])
    definition = SelectionDefinition(where="zstd_ratio > 0")
    with pytest.raises(ValueError, match=r"'web': 11 of 60 .* zstd_ratio .*: materialize document_features first"):
        find_thresholds(connection, selector_fingerprint="f", definition=definition)
    assert len(_selected(connection, SelectionDefinition(where="score > 0"))[1]) > 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(8, 60), outlier=st.sampled_from([0.0, 1e6]))
def test_the_score_without_confounders_is_the_residual_of_least_squares(seed: int, n: int, outlier: float) -> None:
    rows = _scores(n, seed)
    rows[0]["score"] += outlier
    features = _features(rows, seed)
    for row, feature in zip(rows, features, strict=True):
        row["score"] += 2 * math.log(row["n_tokens"]) - 3 * feature["repetition"]
    definition = SelectionDefinition(order="score_without_confounders", keep=Keep(fraction=0.3, of="documents"))
    with duckdb.connect() as connection:
        _register(connection, rows, features)
        (one,) = _fit(connection, definition)
        (threshold,), subset = _selected(connection, definition)
        _register(connection, rows[::-1], features[::-1])
        assert _fit(connection, definition) == [one], "to the last bit"
    x = np.array(
        [[1, math.log(r["n_tokens"]), *(f[name] for name in _NAMES)] for r, f in zip(rows, features, strict=True)]
    )
    y = np.array([row["score"] for row in rows])
    expected = np.linalg.lstsq(x, y)[0]
    scale = max(1.0, outlier)
    np.testing.assert_allclose(one.coefficients, expected, atol=1e-5 * scale)
    residual = y - x @ np.array(one.coefficients)
    np.testing.assert_allclose(one.spread, residual.std(), rtol=1e-5)
    best = sorted(zip(residual, rows, strict=True), key=lambda pair: (pair[0], pair[1]["doc_id"]), reverse=True)
    kept = best[: math.ceil(3 * n / 10)]
    assert {row["doc_id"] for row in subset} == {row["doc_id"] for _, row in kept}
    assert math.isclose(threshold["threshold_key"], kept[-1][0], rel_tol=1e-9, abs_tol=1e-9 * scale)


def test_features_that_do_not_vary_or_repeat_each_other_take_nothing_out() -> None:
    rows = rows_of({"web": [(float(n), 7) for n in range(20)]})
    features = [row | {"repetition": n / 20, "repeated_lines": n / 20} for n, row in enumerate(_features(rows))]
    definition = SelectionDefinition(order="score_without_confounders")
    with duckdb.connect() as connection:
        _register(connection, rows, features)
        (one,) = _fit(connection, definition)
    _, log_tokens, repetition, repeated_lines, *_ = one.coefficients
    assert (log_tokens, repeated_lines) == (0.0, 0.0)
    assert math.isclose(repetition, 20, rel_tol=1e-6)


def _refused(rows: list[Row], said: str, **definition: Any) -> None:
    with pytest.raises(ValueError, match=said):
        found(rows, SelectionDefinition(**definition))


def test_what_a_domain_does_not_have_is_refused_by_field_and_value() -> None:
    rows = rows_of({"web": [(1.0, 10)] * 3, "code": [(1.0, 10)] * 5})
    _refused(rows, r"selections\.paper\.keep\.documents: 4: domain 'web' has 3 documents", keep=Keep(documents=4))
    _refused(
        rows,
        r"selections\.paper\.domains\.code\.tokens: 51: domain 'code' has 50 tokens",
        domains={"code": DomainRule(tokens=51)},
    )
    _refused(
        rows,
        r"selections\.paper\.domains\.math: no document of the domain has a score",
        domains={"math": DomainRule(fraction=1.0)},
    )
    _refused(rows, "none of the 5 scored documents of domain 'code' passes its filters", where="domain <> 'code'")
    _refused(rows, "nothing is scored by selector f", domains={"web": "exclude", "code": "exclude"})
    kept, thresholds = found(rows, SelectionDefinition(domains={"code": "exclude"}, keep=Keep(documents=3)))
    assert ({domain for domain, _ in kept}, len(kept), thresholds[0]["wanted"]) == ({"web"}, 3, 3)


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        (
            {"where": "repetiton < 1"},
            r"here: selections\.x\.where: repetiton: no such column; did you mean repetition\?",
        ),
        ({"where": "n_tokens > (SELECT 1)"}, r"here: selections\.x\.where: a subquery"),
    ],
)
def test_a_definition_is_checked_before_anything_runs(definition: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_definition("x", SelectionDefinition(**definition), place="here")


def test_documents_rank_by_their_best_window_where_scores_have_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that were written before are without the column: their documents' scores stand for them."""
    lake, definition = Lake(Root.at(tmp_path)), SelectionDefinition(order="max_window_score", keep=Keep(documents=2))
    schema = TABLES["scores"]
    with monkeypatch.context() as before:
        before.setitem(TABLES, "scores", schema.remove(schema.get_field_index("window_scores")))
        old = scores_of("web", "old", 3, score=1.5)
        lake.replace("scores", old, where={"domain": "web", "shard": "old"})
    check_definition("x", definition, place="here")
    with connect_for(lake, [definition]) as connection:
        kept = find_thresholds(connection, selector_fingerprint="f", definition=definition).to_pylist()
        assert (kept[0]["threshold_key"], kept[0]["threshold_doc_id"]) == (1.5, "web-old-1")
    of_windows = [[0.5, 3.0], None, [None, 1.75]]
    rows = scores_of("web", "new", 3, score=1.0).to_pylist()
    new = [row | {"window_scores": of_one} for row, of_one in zip(rows, of_windows, strict=True)]
    lake.replace("scores", pa.Table.from_pylist(new, schema=TABLES["scores"]), where={"domain": "web", "shard": "new"})
    with connect_for(lake, [definition]) as connection:
        (threshold,), subset = _selected(connection, definition)
    assert {(row["doc_id"], row["order_key"], row["score"]) for row in subset} == {
        ("web-new-0", 3.0, 1.0),
        ("web-new-2", 1.75, 1.0),
    }
    assert threshold["threshold_score"] == 1.0
