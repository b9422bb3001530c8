"""The assets of features and confounders over real files and tables."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from attninf_assets.orchestration.assets.confounders import _warnings
from attninf_assets.scores.features.confounders import Correlation, DomainConfounders
from attninf_assets.store.schemas import TABLES
from attninf_assets_tests.support.pipeline import SHARDS, Pipeline, build_pipeline, checked, materialized


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipeline = build_pipeline(tmp_path_factory.mktemp("features"), monkeypatch)
        pipeline.run_everything()
        yield pipeline


def test_features_need_no_selector_and_a_second_run_computes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build_pipeline(tmp_path, monkeypatch)
    pipeline.run(["raw_corpus"], SHARDS[0])
    first = materialized(pipeline.run(["document_features"], SHARDS[0]), "document_features")
    again = materialized(pipeline.run(["document_features"], SHARDS[0]), "document_features")
    assert (first["documents_computed"], first["documents_kept"]) == (25, 0)
    assert (again["documents_computed"], again["documents_kept"]) == (0, 25)
    assert "megabytes_per_second" not in again
    broken = pipeline.run(["document_features"], SHARDS[1], raise_on_error=False)
    assert not broken.success  # not indexed


def test_every_indexed_document_has_features_and_the_check_says_so(pipeline: Pipeline) -> None:
    assert len(pipeline.rows("document_features")) == 75
    assert checked(pipeline, "every_document_has_features_once", SHARDS[0]).passed
    where = {"domain": "letters", "shard": "a"}
    kept = pipeline.lake.read("document_features", where=where)
    pipeline.lake.replace("document_features", kept.slice(1), where=where)
    assert not checked(pipeline, "every_document_has_features_once", SHARDS[0]).passed
    pipeline.lake.replace("document_features", kept, where=where)


def test_confounders_are_told_with_numbers_pictures_and_remedies(pipeline: Pipeline) -> None:
    result = pipeline.run(["score_confounders"])
    told = materialized(result, "score_confounders")
    assert [row.data["domain"] for row in told["domains"].records] == ["letters", "notes"]
    assert (told["documents"], told["documents_looked_at"]) == (75, 75)
    strongest = {row.data["strongest"] for row in told["domains"].records}
    assert strongest == {"repetition"}, "every fifth document of the corpus is a sentence twice"
    assert told["scores_against_length_and_repetition"].startswith("![attention influence score against tokens")
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.severity) == ("score_is_more_than_confounders", dg.AssetCheckSeverity.WARN)
    assert {row.data["feature"] for row in told["correlations"].records} >= {"repetition", "n_tokens", "loss_base"}


def test_without_features_it_says_what_to_materialize(pipeline: Pipeline) -> None:
    features = pipeline.lake.read("document_features")
    pipeline.lake.replace("document_features", TABLES["document_features"].empty_table())
    with pytest.raises(ValueError, match="no domain has scores with features: materialize document_features"):
        pipeline.run(["score_confounders"])
    pipeline.lake.replace("document_features", features)


def _found(**what: object) -> list[dict[str, str]]:
    plain: dict[str, object] = {
        "correlations": (),
        "explained_by_features": 0.1,
        "explained_by_source": 0.1,
        "source_auc": 0.5,
        "near_constant_sources": (),
    }
    rest = {"n_documents": 9, "n_sampled": 9, "left": 0.8, "within_length": 0.9, "length_bins": ()}
    return list(_warnings(DomainConfounders(domain="web", **{**plain, **rest, **what})))  # type: ignore[arg-type]


def _correlation(feature: str, low: float, high: float) -> Correlation:
    return Correlation(feature, (low + high) / 2, low, high, 0.0, 0.0)


def test_what_is_within_the_limits_is_no_warning() -> None:
    assert _found() == []
    assert _found(correlations=(_correlation("repetition", 0.4, 0.7), _correlation("loss_base", 0.8, 0.9))) == []


@pytest.mark.parametrize(
    ("what", "remedy"),
    [
        ({"correlations": (_correlation("n_tokens", 0.6, 0.7),)}, "order: score_at_matched_length"),
        ({"correlations": (_correlation("repetition", 0.6, 0.7),)}, "where: repetition < 0.2"),
        ({"correlations": (_correlation("zstd_ratio", -0.9, -0.6),)}, "order: score_without_confounders"),
        ({"correlations": (_correlation("licence_markers", 0.6, 0.7),)}, "where: licence_markers = 0"),
        ({"explained_by_features": 0.6}, "order: score_without_confounders"),
        ({"explained_by_source": 0.6}, "make the source a domain of its own"),
        ({"source_auc": 0.85}, "make the source a domain of its own"),
        ({"near_constant_sources": ("a", "b", "c", "d")}, "make the source a domain of its own"),
    ],
)
def test_each_thing_beyond_its_limit_has_the_remedy_that_fits(what: dict[str, object], remedy: str) -> None:
    (warning,) = _found(**what)
    assert warning["domain"] == "web"
    assert remedy in warning["remedy"]
