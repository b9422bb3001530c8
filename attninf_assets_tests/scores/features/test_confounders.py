"""What scores go with, against plain loops, against what was planted, and drawn from tables in any order."""

import hashlib
import math
import random
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.scores.features import confounder_sample
from attninf_assets.scores.features.confounder_sample import confounders_by_domain
from attninf_assets.scores.features.confounders import SHOWN, DomainConfounders, confounders_of

ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.sampled_from("ab")), min_size=5, max_size=40)


def _of(scores: list[float], shards: str | list[str] | None = None, **features: list[float]) -> DomainConfounders:
    """Of documents of which nothing is known but these features."""
    columns: dict[str, Any] = {name: np.zeros(len(scores)) for name in SHOWN}
    columns |= {name: np.array(values, dtype=float) for name, values in features.items()}
    columns |= {"score": np.array(scores), "shard": np.array(list(shards or "a" * len(scores)))}
    return confounders_of("web", columns, n_documents=len(scores))


def _ranks(values: list[float]) -> list[float]:
    return [sum(other < one for other in values) + (values.count(one) + 1) / 2 for one in values]


def _variance(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)


@settings(max_examples=25)
@given(ROWS)
def test_correlations_are_those_of_the_ranks(rows: list[tuple[int, int, str]]) -> None:
    scores, values = [float(score) for score, _, _ in rows], [float(value) for _, value, _ in rows]
    found = _of(scores, repetition=values).of("repetition")
    if len(set(values)) == 1:
        assert found is None
        return
    assert found is not None
    assert -1 - 1e-9 <= found.low <= found.rho + 1e-9 <= found.high + 2e-9 <= 1 + 1e-6
    if len(set(scores)) == 1:
        assert found.rho == 0
        return
    left, right = _ranks(scores), _ranks(values)
    mean = (len(rows) + 1) / 2
    covariance = sum((x - mean) * (y - mean) for x, y in zip(left, right, strict=True)) / len(rows)
    assert found.rho == pytest.approx(covariance / math.sqrt(_variance(left) * _variance(right)), abs=1e-9)


@settings(max_examples=25)
@given(ROWS)
def test_what_a_source_explains_is_the_variance_between_sources_less_chance(rows: list[tuple[int, int, str]]) -> None:
    scores, shards = [float(score) for score, _, _ in rows], [shard for _, _, shard in rows]
    found = _of(scores, shards).explained_by_source
    if len(set(shards)) == 1:
        assert found is None
        return
    ranks = _ranks(scores)
    if _variance(ranks) == 0:
        assert found == 0
        return
    within = 0.0
    for shard in set(shards):
        inside = [rank for rank, of in zip(ranks, shards, strict=True) if of == shard]
        within += _variance(inside) * len(inside) / len(ranks)
    share = 1 - within / _variance(ranks)
    expected = 1 - (1 - share) * (len(ranks) - 1) / (len(ranks) - 2)
    assert found == pytest.approx(max(0.0, expected), abs=1e-9)


@settings(max_examples=25)
@given(ROWS)
def test_nothing_depends_on_how_far_scores_are_apart(rows: list[tuple[int, int, str]]) -> None:
    scores, shards = [float(score) for score, _, _ in rows], [shard for _, _, shard in rows]
    values = [float(value) for _, value, _ in rows]
    one, other = (
        _of(scale, shards, n_tokens=values, alphabetic=values[::-1])
        for scale in (scores, [10**score for score in scores])
    )
    for name in ("correlations", "explained_by_features", "explained_by_source", "source_auc", "left", "within_length"):
        assert getattr(one, name) == getattr(other, name)


def test_a_score_that_is_a_feature_in_disguise_leaves_nothing() -> None:
    rng = random.Random(1)
    repetition = [rng.random() for _ in range(200)]
    found = _of([value**3 for value in repetition], repetition=repetition, n_tokens=[rng.random() for _ in range(200)])
    assert found.strongest == found.of("repetition")
    assert (found.explained_by_features, found.left) == (pytest.approx(1), pytest.approx(0, abs=1e-9))
    strongest = found.strongest
    assert strongest is not None
    assert strongest.rho == pytest.approx(1)
    assert strongest.median_in_top > max(0.7, strongest.median_in_rest)


def test_a_score_that_goes_with_nothing_is_all_left() -> None:
    rng = random.Random(2)
    noise = {name: [rng.random() for _ in range(1000)] for name in ("repetition", "n_tokens", "zstd_ratio")}
    found = _of([rng.random() for _ in range(1000)], [rng.choice("abcde") for _ in range(1000)], **noise)
    assert found.left > 0.97
    assert found.within_length > 0.97
    assert found.source_auc == pytest.approx(0.5, abs=0.06)
    strongest = found.strongest
    assert strongest is not None
    assert strongest.surely_beyond < 0.05


def test_a_source_that_tells_the_score_is_found_out() -> None:
    rng = random.Random(3)
    shards = [rng.choice("abcde") for _ in range(500)]
    found = _of(["abcde".index(shard) + rng.random() for shard in shards], shards)
    assert found.explained_by_source == pytest.approx(0.96, abs=0.03)
    assert found.source_auc is not None
    assert found.source_auc > 0.95
    assert found.left < 0.1


def test_what_length_tells_is_seen_in_its_tenths() -> None:
    tokens = [float(number) for number in range(1, 101)]
    found = _of(tokens, n_tokens=tokens)
    assert [(one.from_tokens, one.to_tokens, one.n_documents) for one in found.length_bins] == [
        (10 * number + 1, 10 * number + 10, 10) for number in range(10)
    ]
    assert [one.share_in_top for one in found.length_bins] == [0.0] * 8 + [1.0] * 2
    assert found.within_length < 0.02


def test_too_few_documents_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="domain web: 3 scores with features, at least 4 are needed"):
        _of([1.0, 2.0, 3.0])


# --- drawn from tables


def _tables(connection: duckdb.DuckDBPyConnection, *, n: int, seed: int) -> None:
    """Views of two domains: in `web` repetition is the score, in `code` the shard `flat` has one score."""
    rng = random.Random(5)
    rows = []
    for number in range(n):
        for domain in ("web", "code"):
            doc_id, shard, score = f"d{number}", rng.choice(["flat", "other"]), rng.random()
            constant = domain == "code" and shard == "flat"
            rows.append(
                {
                    "domain": domain,
                    "shard": shard,
                    "doc_id": doc_id,
                    "text_sha256": hashlib.sha256(doc_id.encode()).hexdigest(),
                    "selector_fingerprint": "ours",
                    "n_tokens": rng.randrange(1, 500),
                    "loss_base": rng.random(),
                    "score": 0.3 + 1e-3 * score if constant else score,
                    "repetition": score,
                    "near_duplicate_cluster": None if number % 3 else "d0",
                    **{name: rng.random() for name in ("repeated_lines", "zstd_ratio", "alphabetic")},
                    **{name: rng.randrange(3) for name in ("licence_markers", "log_markers")},
                }
            )
    nan = {**rows[0], "doc_id": "nan", "score": math.nan}
    others = [{**rows[0], "doc_id": "theirs", "selector_fingerprint": "theirs"}, nan]
    frame = pl.DataFrame([*rows, *others]).sample(fraction=1.0, shuffle=True, seed=seed)
    of_scores = ["n_tokens", "loss_base", "score", "selector_fingerprint"]
    key = ["domain", "shard", "doc_id", "text_sha256"]
    connection.register("scores", frame.select(*key, *of_scores).to_arrow())
    features = frame.filter(selector_fingerprint="ours").sample(fraction=1.0, shuffle=True, seed=seed + 1)
    connection.register("document_features", features.drop(of_scores).to_arrow())


def _found(*, n: int = 300, shuffled: int = 0, **how: int) -> list[DomainConfounders]:
    with duckdb.connect() as connection:
        _tables(connection, n=n, seed=shuffled)
        return [of for of, _ in confounders_by_domain(connection, selector_fingerprint="ours", **how)]


def test_each_domain_is_looked_at_whole_where_it_is_small() -> None:
    code, web = _found()
    assert [(of.domain, of.n_documents, of.n_sampled) for of in (code, web)] == [("code", 300, 300), ("web", 300, 300)]
    found = web.of("repetition")
    assert found is not None
    assert found.rho == pytest.approx(1)
    assert web.of("near_duplicate") is not None


def test_sources_of_nearly_one_score_are_named() -> None:
    code, web = _found()
    assert (code.near_constant_sources, web.near_constant_sources) == (("flat",), ())


def test_a_sample_is_about_as_large_as_asked_and_follows_from_seed_and_ids_alone() -> None:
    first, shuffled, another = _found(size=100, seed=1), _found(shuffled=9, size=100, seed=1), _found(size=100, seed=2)
    assert first == shuffled
    assert first != another
    for of in first:
        assert 70 <= of.n_sampled <= 130
        assert of.n_documents == 300


def test_a_domain_of_which_no_features_are_known_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confounder_sample, "SAMPLE", 1)
    with duckdb.connect() as connection:
        _tables(connection, n=20, seed=0)
        connection.execute("CREATE TEMP TABLE kept AS FROM document_features WHERE domain = 'web'")
        connection.unregister("document_features")
        connection.execute("CREATE VIEW document_features AS FROM kept")
        found = confounders_by_domain(connection, selector_fingerprint="ours")
    assert [of.domain for of, _ in found] == ["web"]
