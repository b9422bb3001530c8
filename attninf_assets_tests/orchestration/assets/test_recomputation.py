"""Every scoring run computes a few of the scores it stored once more, and says so where they differ."""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest

from attninf_assets.orchestration.assets import recomputation
from attninf_assets.orchestration.assets.recomputation import MOST_DOCUMENTS, MOST_TOKENS
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.pipeline import PROBES, SELECTOR, SHARDS, Pipeline, build_pipeline, materialized

_CHECK = "recomputed_scores_agree"
_SCORES = "attention_influence_scores"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A selector, and every shard indexed; nothing is scored."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipeline = build_pipeline(tmp_path_factory.mktemp("recomputed"), monkeypatch)
        for key in SHARDS:
            pipeline.run(["raw_corpus"], key)
        in_float32 = {"retrieval_heads": {"config": {"numeric_class": "float32"}}}  # on whichever processor
        pipeline.run(SELECTOR, config=PROBES | in_float32)
        yield pipeline


def said(run: dg.ExecuteInProcessResult) -> list[dg.AssetCheckEvaluation]:
    return [found for found in run.get_asset_check_evaluations() if found.check_name == _CHECK]


def numbers(evaluation: dg.AssetCheckEvaluation) -> Mapping[str, Any]:
    return {name: value.value for name, value in evaluation.metadata.items()}


def test_a_run_that_scores_computes_a_few_once_more_and_one_that_does_not_says_nothing(pipeline: Pipeline) -> None:
    run = pipeline.run([_SCORES], SHARDS[0])
    (evaluation,) = said(run)
    assert (evaluation.passed, evaluation.partition) == (True, SHARDS[0])
    found, scored = numbers(evaluation), materialized(run, _SCORES)
    assert 1 <= found["documents"] <= MOST_DOCUMENTS
    assert found["tokens"] <= MOST_TOKENS * scored["tokens_scored"] or found["documents"] == 1
    assert found["largest_deviation"] <= found["tolerance"] == 1e-4
    assert found["numeric_class"] == "float32"
    assert found["seed"] == pipeline.lake.version("scores")
    assert said(pipeline.run([_SCORES], SHARDS[0])) == []


def test_a_bit_that_changed_on_its_way_into_the_table_is_noticed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recomputation, "MOST_DOCUMENTS", 100)
    monkeypatch.setattr(recomputation, "MOST_TOKENS", 1.0)
    replace = Lake.replace

    def flipping(lake: Lake, name: str, data: pa.Table, **options: Any) -> int:
        if name == "scores":
            rows = pl.from_arrow(data)
            assert isinstance(rows, pl.DataFrame)
            losses = rows["loss_base"].to_list()
            (bits,) = struct.unpack("<Q", struct.pack("<d", losses[7]))
            losses[7] = struct.unpack("<d", struct.pack("<Q", bits ^ 1 << 50))[0]
            rows = rows.with_columns(loss_base=pl.Series(losses)).with_columns(
                score=(pl.col("loss_reference") - pl.col("loss_base")) / pl.col("loss_base")
            )
            data = rows.to_arrow().cast(TABLES[name])
        return replace(lake, name, data, **options)

    monkeypatch.setattr(Lake, "replace", flipping)
    run = pipeline.run([_SCORES], SHARDS[1], raise_on_error=False)
    monkeypatch.undo()
    (evaluation,) = said(run)
    assert not evaluation.passed
    found = numbers(evaluation)
    assert found["documents"] == 25
    assert found["largest_deviation"] > found["tolerance"]
    (line,) = found["differing"]
    assert line.startswith(f"{pipeline.rows('scores', domain='letters', shard='b')['doc_id'][7]}: stored ")


def test_several_partitions_in_one_run_have_a_result_each(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"max_tokens": 50}}})
    run = pipeline.run([_SCORES], SHARDS[0], to=SHARDS[2])
    assert [evaluation.partition for evaluation in said(run)] == SHARDS
    assert all(evaluation.passed for evaluation in said(run))
