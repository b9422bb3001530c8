"""Coverage and preview over the real pipeline: what they say must be what the tables and the next run say."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from attninf_assets.scores.cost import read_approval, scoring_history
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.query import connect
from attninf_assets.store.schemas import TABLES
from attninf_assets_tests.support.pipeline import PROBES, SELECTOR, SHARDS, Pipeline, build_pipeline, materialized


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Three shards indexed, a selector, the first shard scored."""
    pipeline = build_pipeline(tmp_path, monkeypatch)
    for key in SHARDS:
        pipeline.run(["raw_corpus"], key)
    pipeline.run(SELECTOR, config=PROBES)
    pipeline.run(["attention_influence_scores"], SHARDS[0])
    return pipeline


def coverage(pipeline: Pipeline) -> dict[str, int]:
    """Shards by state, those that there are."""
    shown = materialized(pipeline.run(["score_coverage"]), "score_coverage")
    prefix = "shards_"
    return {name.removeprefix(prefix): n for name, n in shown.items() if name.startswith(prefix) and n}


def table(value: Any) -> list[dict[str, Any]]:
    return [dict(record.data) for record in value.records]


def test_coverage_follows_a_shard_through_its_states(pipeline: Pipeline) -> None:
    assert coverage(pipeline) == {"current": 1, "missing": 2}
    pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"mask": "zero"}}})
    assert coverage(pipeline) == {"stale": 1, "missing": 2}
    for key in SHARDS:
        pipeline.run(["attention_influence_scores"], key)
    result = pipeline.run(["score_coverage"])
    shown = materialized(result, "score_coverage")
    assert [(r["domain"], r["current"], r["shards"]) for r in table(shown["coverage"])] == [
        ("letters", 2, 2),
        ("notes", 1, 1),
    ]
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
    (pipeline.directory / "source/notes/first.jsonl").unlink()
    pipeline.instance.add_dynamic_partitions("corpus_shards", ["notes.second"])
    assert coverage(pipeline) == {"current": 2, "source_gone": 2}
    pipeline.write_shard("notes.second", ["some text"])
    assert coverage(pipeline) == {"current": 2, "source_gone": 1, "not_indexed": 1}


def test_a_failed_shard_is_shown_as_failed_until_it_is_scored(pipeline: Pipeline) -> None:
    path = pipeline.directory / "source/letters/b.parquet"
    whole = path.read_bytes()
    path.write_bytes(b"PAR1 but not for long")
    assert not pipeline.run(["attention_influence_scores"], "letters.b", raise_on_error=False).success
    result = pipeline.run(["score_coverage"])
    assert materialized(result, "score_coverage")["shards_failed"] == 1
    assert [check.passed for check in result.get_asset_check_evaluations()] == [False]
    path.write_bytes(whole)
    pipeline.run(["attention_influence_scores"], "letters.b")
    assert coverage(pipeline) == {"current": 2, "missing": 1}


def test_the_preview_is_what_the_run_then_takes(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_DEVICE_HOUR_PRICE", "3.5")
    preview = materialized(pipeline.run(["rescoring_preview"]), "rescoring_preview")
    assert (preview["partitions"], preview["documents"]) == (2, 50)
    documents = pipeline.rows("documents")
    assert preview["n_bytes"] == documents.join(pipeline.rows("scores"), on="doc_id", how="anti")["n_bytes"].sum()
    (run,) = pipeline.rows("scoring_runs").to_dicts()
    assert preview["tokens_per_second"] == pytest.approx(run["tokens_scored"] / run["seconds"])
    hours = preview["tokens"] / preview["tokens_per_second"] / 3600
    assert preview["money"] == pytest.approx(3.5 * hours)
    for key in SHARDS[1:]:
        pipeline.run(["attention_influence_scores"], key)
    shown = materialized(pipeline.run(["score_coverage"]), "score_coverage")
    compared = {row["of"]: row for row in table(shown["predicted_against_actual"])}
    assert compared["documents"] == {"of": "documents", "predicted": "50", "actual": "50"}
    assert compared["partitions"]["actual"] == "2"
    scores = pipeline.rows("scores").to_dicts()
    tokens = sum(row["n_tokens"] for row in scores if f"{row['domain']}.{row['shard']}" in SHARDS[1:])
    assert float(compared["tokens"]["actual"].replace(",", "")) == tokens
    assert preview["tokens"] == pytest.approx(tokens, rel=0.2)
    nothing = materialized(pipeline.run(["rescoring_preview"]), "rescoring_preview")
    assert (nothing["documents"], nothing["tokens"], nothing["device_hours"], nothing["money"]) == (0, 0, 0.0, 0.0)


def test_what_scoring_ran_at_and_cost_is_shown_per_shard_and_together(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_DEVICE_HOUR_PRICE", "3600")
    scored = materialized(pipeline.run(["attention_influence_scores"], SHARDS[1]), "attention_influence_scores")
    runs = pipeline.rows("scoring_runs").sort("scores_version")
    assert scored["tokens_per_second"] == pytest.approx(runs["tokens_scored"][1] / runs["seconds"][1], rel=0.01)
    assert scored["money"] == pytest.approx(runs["seconds"][1])
    assert scored["device_hours"] == pytest.approx(runs["seconds"][1] / 3600)
    current = materialized(pipeline.run(["attention_influence_scores"], SHARDS[1]), "attention_influence_scores")
    assert (current["tokens_scored"], current["device_hours"], current["money"]) == (0, 0.0, 0.0)
    shown = materialized(pipeline.run(["score_coverage"]), "score_coverage")
    tokens, seconds = (sum(runs[name].to_list()) for name in ("tokens_scored", "seconds"))
    assert shown["tokens_per_second"] == pytest.approx(tokens / seconds)
    assert shown["money"] == pytest.approx(seconds)
    assert "throughput and cost of every scored shard" in shown["throughput_and_cost"]
    pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"mask": "zero"}}})
    unscored = materialized(pipeline.run(["score_coverage"]), "score_coverage")
    assert not {"throughput_and_cost", "tokens_per_second", "money"}.intersection(unscored)


def test_the_history_of_scoring_is_in_the_order_of_commits_whatever_the_clocks_said(pipeline: Pipeline) -> None:
    for key in (SHARDS[2], SHARDS[1]):
        pipeline.run(["attention_influence_scores"], key)
    fingerprint = current_fingerprint(pipeline.lake.root)
    backwards = pipeline.rows("scoring_runs").with_columns(committed_at=pl.col("committed_at").reverse())
    pipeline.lake.replace("scoring_runs", backwards.to_arrow().cast(TABLES["scoring_runs"]))
    with connect(pipeline.lake, "scoring_runs") as connection:
        history = scoring_history(connection, selector_fingerprint=fingerprint)
        assert len(scoring_history(connection, selector_fingerprint="another")) == 0
    assert [f"{row['domain']}.{row['shard']}" for row in history.to_pylist()] == [SHARDS[0], SHARDS[2], SHARDS[1]]


def test_above_the_budget_nothing_is_scored_until_confirmed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_DEVICE_HOUR_PRICE", "1000000")
    monkeypatch.setenv("ATTNINF_BUDGET", "0.01")
    pipeline.run(["attention_influence_scores"], SHARDS[0])  # current: costs nothing, asks nobody
    with pytest.raises(ValueError, match="materialize rescoring_preview for the selector in use first"):
        pipeline.run(["attention_influence_scores"], SHARDS[1])
    with pytest.raises(dg.Failure, match=r"scoring 50 documents would cost .* above the spending limit of 0\.01"):
        pipeline.run(["rescoring_preview"])
    with pytest.raises(
        ValueError, match=r"above the spending limit of 0\.01; materialize rescoring_preview with confirm"
    ):
        pipeline.run(["attention_influence_scores"], SHARDS[1])
    pipeline.run(["rescoring_preview"], config={"rescoring_preview": {"config": {"confirm": True}}})
    pipeline.run(["attention_influence_scores"], SHARDS[1])
    pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"mask": "zero"}}})
    with pytest.raises(ValueError, match="materialize rescoring_preview for the selector in use first"):
        pipeline.run(["attention_influence_scores"], SHARDS[1])


def test_a_cost_that_was_never_measured_is_unknown_and_a_budget_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build_pipeline(tmp_path, monkeypatch)
    pipeline.run(["raw_corpus"], SHARDS[0])
    pipeline.run(SELECTOR, config=PROBES)
    preview = materialized(pipeline.run(["rescoring_preview"]), "rescoring_preview")
    assert (preview["documents"], preview["tokens"], preview["money"]) == (25, "unknown", "unknown")
    monkeypatch.setenv("ATTNINF_BUDGET", "5")
    with pytest.raises(dg.Failure, match="never measured here"):
        pipeline.run(["rescoring_preview"])
    given = {"rescoring_preview": {"config": {"tokens_per_second": 1000.0, "bytes_per_token": 4.0}}}
    pipeline.run(["rescoring_preview"], config=given)
    approval = read_approval(pipeline.lake.root, current_fingerprint(pipeline.lake.root))
    assert approval is not None
    assert approval.approved
