"""Coverage and preview over the real pipeline: what they say must be what the tables and the next run say."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from attninf_assets.definitions import definitions
from attninf_assets.scores.cost import read_approval, scoring_history
from attninf_assets.scores.staging import StagedScores
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.query import connect
from attninf_assets.store.schemas import TABLES
from attninf_assets_tests.support.pipeline import PROBES, SELECTOR, SHARDS, Pipeline, build_pipeline, materialized

MEASURED = {"tokens_scored", "seconds_scoring", "tokens_per_second", "device_hours", "money"}


def four_digits(number: float) -> float:
    """As people read it."""
    return float(f"{number:.4g}")


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
    """The rows of a table in metadata."""
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


def test_a_failed_shard_is_shown_as_failed_with_its_reason_until_it_is_scored(pipeline: Pipeline) -> None:
    path = pipeline.directory / "source/letters/b.parquet"
    whole = path.read_bytes()
    path.write_bytes(b"PAR1 but not for long")
    assert not pipeline.run(["attention_influence_scores"], "letters.b", raise_on_error=False).success
    result = pipeline.run(["score_coverage"])
    shown = materialized(result, "score_coverage")
    assert shown["shards_failed"] == 1
    (failed,) = table(shown["failed"])
    assert (failed["shard"], failed["failed"]) == ("letters.b", "scoring")
    assert "b.parquet: cannot be read as parquet" in failed["reason"]
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    named = table(check.metadata["not_current"])
    assert [(row["shard"], row["state"]) for row in named] == [("letters.b", "failed"), ("notes.first", "missing")]
    path.write_bytes(whole)
    pipeline.run(["attention_influence_scores"], "letters.b")
    assert coverage(pipeline) == {"current": 2, "missing": 1}


def test_a_shard_whose_indexing_failed_is_failed_whether_it_was_scored_or_never_known(pipeline: Pipeline) -> None:
    for key in SHARDS[1:]:
        pipeline.run(["attention_influence_scores"], key)
    assert coverage(pipeline) == {"current": 3}
    path = pipeline.directory / "source/letters/a.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    pipeline.instance.add_dynamic_partitions("corpus_shards", ["notes.second"])
    (pipeline.directory / "source/notes/second.jsonl").write_text("")
    for key in ("letters.a", "notes.second"):
        failed = pipeline.run(["raw_corpus"], key, raise_on_error=False)
        (step,) = [event for event in failed.all_events if event.is_step_failure]
        assert step.step_failure_data.user_failure_data is not None
        (row,) = table(step.step_failure_data.user_failure_data.metadata["failed_partitions"])
        assert row["partition"] == key
        assert row["file"].endswith(f"{key.replace('.', '/')}.{'parquet' if key == 'letters.a' else 'jsonl'}")
        assert row["file"] in row["reason"]
        assert "formats.py" not in (step.step_failure_data.error or "").to_string()  # type: ignore[union-attr]
    shown = materialized(pipeline.run(["score_coverage"]), "score_coverage")
    assert (shown["shards_current"], shown["shards_failed"], shown["shards_not_indexed"]) == (2, 2, 0)
    assert [(row["shard"], row["failed"]) for row in table(shown["failed"])] == [
        ("letters.a", "indexing"),
        ("notes.second", "indexing"),
    ]
    path.write_bytes(whole)
    pipeline.run(["raw_corpus"], "letters.a")
    assert coverage(pipeline) == {"current": 3, "failed": 1}


def test_during_a_rescoring_it_tells_from_which_selector_to_which_how_far_and_until_when(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_DEVICE_HOUR_PRICE", "3600")
    for key in SHARDS[1:]:
        pipeline.run(["attention_influence_scores"], key)
    before = current_fingerprint(pipeline.lake.root)
    done = materialized(pipeline.run(["score_coverage"]), "score_coverage")
    assert done["state"].startswith(
        f"**Every indexed document is scored by `{before[:12]}`**\n\n- 75 of 75 documents (100%)\n"
    )
    pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"mask": "zero"}}})
    after = current_fingerprint(pipeline.lake.root)
    pipeline.run(["attention_influence_scores"], SHARDS[0])
    staged = pipeline.rows("scores", shard="b").drop("domain", "shard", "selector_fingerprint").to_arrow()[:10]
    StagedScores(pipeline.lake.root, after, "letters", "b").add(staged)
    job = definitions().resolve_implicit_global_asset_job_def()
    scores = dg.AssetKey("attention_influence_scores")
    running = pipeline.instance.create_run_for_job(
        job.get_subset(asset_selection={scores}),
        asset_selection=frozenset({scores}),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "letters.b"},
    )
    shown = materialized(pipeline.run(["score_coverage"]), "score_coverage")
    assert shown["state"].startswith(f"**Rescoring: `{before[:12]}` → `{after[:12]}`**\n\n- 35 of 75 documents (47%)\n")
    assert f"- still by `{before[:12]}`: 2 shards" in shown["state"]
    assert max(map(len, shown["state"].splitlines())) < 64
    assert "- 1 run at work, " in shown["state"]
    assert " left, until 20" in shown["state"]
    assert {state: shown[f"shards_{state}"] for state in ("current", "running", "stale")} == {
        "current": 1,
        "running": 1,
        "stale": 1,
    }
    tokens = pipeline.rows("scores")["n_tokens"].sum()
    assert shown["documents_scored"] == 35
    assert shown["tokens_scored"] + shown["tokens_left"] == tokens
    assert (shown["runs_at_work"], shown["documents_staged"]) == (1, 10)
    (run,) = pipeline.rows("scoring_runs").filter(selector_fingerprint=after).to_dicts()
    rate = run["tokens_scored"] / run["seconds"]
    assert shown["hours_left"] == pytest.approx(shown["tokens_left"] / rate / 3600, abs=0.001)
    assert shown["money"] == four_digits(run["seconds"])
    pipeline.instance.report_run_failed(running)
    idle = materialized(pipeline.run(["score_coverage"]), "score_coverage")
    assert "- nothing is being scored now" in idle["state"]
    assert idle["shards_failed"] == 1
    assert "killed or cancelled" in table(idle["failed"])[0]["reason"]


def test_the_preview_is_what_the_run_then_takes(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_DEVICE_HOUR_PRICE", "3.5")
    preview = materialized(pipeline.run(["rescoring_preview"]), "rescoring_preview")
    assert (preview["partitions"], preview["documents"]) == (2, 50)
    documents = pipeline.rows("documents")
    assert preview["n_bytes"] == documents.join(pipeline.rows("scores"), on="doc_id", how="anti")["n_bytes"].sum()
    (run,) = pipeline.rows("scoring_runs").to_dicts()
    rate = run["tokens_scored"] / run["seconds"]
    assert preview["tokens_per_second"] == four_digits(rate)
    assert preview["money"] == four_digits(3.5 * preview["tokens"] / rate / 3600)
    assert preview["spending_limit"] == "none"
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


def test_the_first_preview_knows_the_rates_of_a_trial_and_names_the_document_that_stands_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_DEVICE_HOUR_PRICE", "3.5")
    pipeline = build_pipeline(tmp_path, monkeypatch)
    pipeline.write_shard("notes.first", ["a line of a few words. " * 40, *["a few words."] * 5])
    for key in SHARDS:
        pipeline.run(["raw_corpus"], key)
    heads = materialized(pipeline.run(SELECTOR, config=PROBES), "retrieval_heads")
    preview = materialized(pipeline.run(["rescoring_preview"]), "rescoring_preview")
    assert preview["tokens_per_second"] == heads["tokens_per_second"] > 0
    assert "when the selector was made" in preview["measured_on"]
    rows = {row["domain"]: row for row in table(preview["by_domain"])}
    assert {domain: row["documents"] for domain, row in rows.items()} == {"letters": 50, "notes": 6}
    assert preview["tokens"] == sum(int(row["tokens"].replace(",", "")) for row in rows.values())
    assert preview["money"] == pytest.approx(3.5 * preview["tokens"] / heads["tokens_per_second"] / 3600, rel=0.01)
    documents = pipeline.rows("documents")
    giant = documents.sort("n_bytes")[-1]
    share = giant["n_bytes"].item() / documents["n_bytes"].sum()
    assert preview["stands_out"] == f"notes.first-0 in notes.first is {share:.0%} of the bytes"
    assert table(preview["largest_documents"])[0]["doc_id"] == "notes.first-0"
    again = materialized(pipeline.run(SELECTOR, config=PROBES), "retrieval_heads")
    assert again["trial"] == heads["trial"]  # remembered, not made again
    shown = materialized(pipeline.run(["score_coverage"]), "score_coverage")
    assert shown["tokens_left"] == preview["tokens"]
    assert "rate not measured yet" not in shown["state"]
    for key in SHARDS:
        pipeline.run(["attention_influence_scores"], key)
    assert preview["tokens"] == pytest.approx(pipeline.rows("scores")["n_tokens"].sum(), rel=0.05)


def test_what_scoring_ran_at_and_cost_is_shown_per_shard_and_together(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_DEVICE_HOUR_PRICE", "3600")
    scored = materialized(pipeline.run(["attention_influence_scores"], SHARDS[1]), "attention_influence_scores")
    runs = pipeline.rows("scoring_runs").sort("scores_version")
    assert scored["tokens_per_second"] == pytest.approx(runs["tokens_scored"][1] / runs["seconds"][1], rel=0.01)
    assert scored["money"] == four_digits(runs["seconds"][1])
    assert scored["device_hours"] == four_digits(runs["seconds"][1] / 3600)
    current = materialized(pipeline.run(["attention_influence_scores"], SHARDS[1]), "attention_influence_scores")
    assert (current["documents_scored"], current["documents_reused"]) == (0, 25)
    assert not MEASURED.intersection(current)
    assert scored.keys() >= MEASURED
    shown = materialized(pipeline.run(["score_coverage"]), "score_coverage")
    tokens, seconds = (sum(runs[name].to_list()) for name in ("tokens_scored", "seconds"))
    assert shown["tokens_per_second"] == four_digits(tokens / seconds)
    assert shown["money"] == four_digits(seconds)
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
    with pytest.raises(dg.Failure, match="materialize rescoring_preview for the selector in use first"):
        pipeline.run(["attention_influence_scores"], SHARDS[1])
    with pytest.raises(dg.Failure, match=r"scoring 50 documents would cost .* above the spending limit of 0\.01"):
        pipeline.run(["rescoring_preview"])
    with pytest.raises(
        dg.Failure, match=r"above the spending limit of 0\.01; materialize rescoring_preview with confirm"
    ):
        pipeline.run(["attention_influence_scores"], SHARDS[1])
    pipeline.run(["rescoring_preview"], config={"rescoring_preview": {"config": {"confirm": True}}})
    pipeline.run(["attention_influence_scores"], SHARDS[1])
    pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"mask": "zero"}}})
    with pytest.raises(dg.Failure, match="materialize rescoring_preview for the selector in use first"):
        pipeline.run(["attention_influence_scores"], SHARDS[1])


def test_a_cost_that_was_never_measured_is_unknown_and_a_budget_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build_pipeline(tmp_path, monkeypatch)
    pipeline.run(["raw_corpus"], SHARDS[0])
    pipeline.run(SELECTOR, config=PROBES)
    (trial,) = Path(pipeline.lake.root.uri).glob("selectors/trials/*.json")
    trial.unlink()
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
