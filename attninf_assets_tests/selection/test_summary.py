"""What is shown of a selection."""

import math

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from attninf_assets.selection import summary
from attninf_assets.selection.summary import sampled_scores, selected_by_domain
from attninf_assets.store.schemas import TABLES
from benchmarks.rigs.tables_of_scores import scores_of


def _scores(domain: str, n: int) -> pa.Table:
    scores = [None, math.nan, math.inf, *(float(i) for i in range(n - 3))]
    table = scores_of(domain, "a", n)
    return table.set_column(table.column_names.index("score"), TABLES["scores"].field("score"), [scores])


def test_the_sample_is_all_finite_scores_by_the_selector_where_they_are_few() -> None:
    tables = [_scores("web", 9), _scores("code", 5), scores_of("web", "b", 3, mark="another", score=99.0)]
    with duckdb.connect() as connection:
        connection.register("scores", pa.concat_tables(tables))
        sample = sampled_scores(connection, ["web", "code", "empty"], selector_fingerprint="f")
    assert {domain: sorted(scores) for domain, scores in sample.items()} == {
        "web": [0, 1, 2, 3, 4, 5],
        "code": [0, 1],
        "empty": [],
    }
    assert {scores.dtype for scores in sample.values()} == {np.dtype("float64")}


def test_of_many_scores_about_as_many_are_sampled_as_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_PER_DOMAIN", 100)
    with duckdb.connect() as connection:
        connection.register("scores", pa.concat_tables([_scores("web", 4_003), _scores("code", 150)]))
        sample = sampled_scores(connection, ["web", "code"], selector_fingerprint="f")
    assert 50 < len(sample["web"]) < 200
    assert len(set(sample["web"])) == len(sample["web"])
    assert len(sample["code"]) == 147


def test_every_domain_selected_from_is_summed_up() -> None:
    with duckdb.connect() as connection:
        connection.register("selected_subset", pa.concat_tables([scores_of("web", "a", 3), scores_of("code", "a", 1)]))
        assert selected_by_domain(connection) == [
            {"domain": "code", "documents": 1, "tokens": 1, "lowest_score": 1.0, "mean_score": 1.0},
            {"domain": "web", "documents": 3, "tokens": 6, "lowest_score": 1.0, "mean_score": 1.0},
        ]
