"""Named selections over the whole project: they are made as defined, stay so through automation, and are retired."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from attninf_assets.definitions import definitions
from attninf_assets.orchestration.assets.checks import every_selection_is_defined
from attninf_assets.orchestration.automation.selections import selections_sensor
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS, SELECTIONS
from attninf_assets_tests.support.pipeline import (
    OF_SELECTIONS,
    PROBES,
    SELECTOR,
    SHARDS,
    Pipeline,
    build_pipeline,
    materialized,
)

SCORES = "attention_influence_scores"
LEAN = {"keep": {"fraction": 0.4, "of": "tokens"}, "domains": {"notes": "exclude"}}


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    return build_pipeline(tmp_path, monkeypatch)


def _tick(pipeline: Pipeline) -> tuple[dg.SensorResult, str]:
    resources: dict[str, Any] = dict(definitions().resources or {})
    with dg.build_sensor_context(instance=pipeline.instance, resources=resources) as context:
        result = selections_sensor(context)
    assert isinstance(result, dg.SensorResult)
    for request in result.dynamic_partitions_requests or ():
        assert isinstance(request, dg.AddDynamicPartitionsRequest)
        pipeline.instance.add_dynamic_partitions(SELECTIONS, list(request.partition_keys))
    for event in result.asset_events:
        assert isinstance(event, dg.AssetMaterialization)
        pipeline.instance.report_runless_asset_event(event)
    assert isinstance(result.skip_reason, dg.SkipReason)
    return result, result.skip_reason.skip_message or ""


def _write(pipeline: Pipeline, *, mix: str | None = None, **selections: Any) -> None:
    path = pipeline.directory / "selections.yaml"
    path.write_text(yaml.safe_dump({"selections": selections} | ({} if mix is None else {"mix": mix})))
    pipeline.monkeypatch.setenv("ATTNINF_SELECTIONS", str(path))


def test_the_sensor_registers_names_and_reports_exactly_what_changed(pipeline: Pipeline) -> None:
    assert _tick(pipeline)[0].asset_events == []  # paper is known
    _write(pipeline, paper={}, lean=LEAN)
    result, said = _tick(pipeline)
    assert [event.partition for event in result.asset_events] == ["lean"]
    assert "new: lean" in said
    assert pipeline.instance.get_dynamic_partitions(SELECTIONS) == ["paper", "lean"]
    _write(pipeline, paper={"seed": 0}, lean=LEAN | {"seed": 1})
    result, said = _tick(pipeline)
    assert [event.partition for event in result.asset_events] == ["lean"]
    assert "changed: lean" in said
    assert _tick(pipeline)[0].asset_events == []
    _write(pipeline, paper={})
    result, said = _tick(pipeline)
    assert result.asset_events == []
    assert "no longer defines lean: rows and partition stay until retire_selections is run" in said
    assert pipeline.instance.get_dynamic_partitions(SELECTIONS) == ["paper", "lean"]


def _automated(pipeline: Pipeline, cursor: Any) -> Any:
    """Ticks of the automation, each request run with the launchpad's defaults, until nothing is asked for."""
    while True:
        result = dg.evaluate_automation_conditions(definitions(), instance=pipeline.instance, cursor=cursor)
        cursor = result.cursor
        requested = {
            name: result.get_requested_partitions(dg.AssetKey(name))
            for name in (SCORES, *OF_SELECTIONS, "training_corpus")
        }
        if not any(requested.values()):
            return cursor
        for key in sorted(key or "" for key in requested[SCORES]):
            pipeline.run([SCORES], key)
        for key in sorted(key or "" for key in requested[OF_SELECTIONS[0]]):
            pipeline.run(OF_SELECTIONS, key)
        if requested["training_corpus"]:
            pipeline.run(["training_corpus"])


def _shares(pipeline: Pipeline, name: str) -> dict[str, tuple[float, str]]:
    """Of each domain, what its thresholds say was asked for; what is selected must reach it."""
    thresholds = pipeline.rows("thresholds", selection=name)
    scores = pipeline.rows("scores")
    for row in thresholds.to_dicts():
        selected = pipeline.rows("selected_subset", selection=name, domain=row["domain"])
        of_domain = scores.filter(pl.col("domain") == row["domain"])
        weigh = (lambda frame: frame["n_tokens"].sum()) if row["budget"] == "tokens" else len
        wanted = row["fraction"] * weigh(of_domain)
        lowest = selected["n_tokens"].max() if row["budget"] == "tokens" else 1
        assert wanted <= weigh(selected) + 1e-9 < wanted + lowest + 1
        assert row["n_documents"] == len(of_domain)
        best = of_domain.sort("score", "doc_id", descending=True).head(len(selected))
        assert set(selected["doc_id"]) == set(best["doc_id"])
    return {row["domain"]: (row["fraction"], row["budget"]) for row in thresholds.to_dicts()}


def test_what_a_person_defined_stays_so_while_shards_land_and_the_automation_runs(pipeline: Pipeline) -> None:
    paper = {"letters": (0.2, "documents"), "notes": (0.2, "documents")}
    lean = {"letters": (0.4, "tokens")}
    pipeline.define(paper={}, lean=LEAN)
    for key in SHARDS:
        pipeline.run(["raw_corpus"], key)
    pipeline.run(SELECTOR, config=PROBES)
    cursor = _automated(pipeline, None)
    assert (_shares(pipeline, "paper"), _shares(pipeline, "lean")) == (paper, lean)
    n_lean = len(pipeline.rows("selected_subset", selection="lean"))
    mix = pl.read_parquet(Path(pipeline.lake.root.uri) / "training_corpus/*.parquet")
    assert len(mix.filter(pl.col("source") == "selected")) == 15

    pipeline.write_shard("letters.c", [f"Another text, the {n}th of a shard that landed later." for n in range(20)])
    pipeline.instance.add_dynamic_partitions(CORPUS_SHARDS, ["letters.c"])
    pipeline.run(["raw_corpus"], "letters.c")
    cursor = _automated(pipeline, cursor)
    assert (_shares(pipeline, "paper"), _shares(pipeline, "lean")) == (paper, lean)
    assert len(pipeline.rows("selected_subset", selection="lean")) != n_lean
    of_paper = pipeline.lake.version("selected_subset")

    pipeline.define(paper={}, lean=LEAN | {"keep": {"documents": 3}})
    before = pipeline.rows("selected_subset", selection="paper").sort("doc_id")
    _automated(pipeline, cursor)
    assert _shares(pipeline, "lean") == {"letters": (3 / 70, "documents")}
    assert pipeline.rows("selected_subset", selection="paper").sort("doc_id").equals(before)
    assert (pipeline.lake.version("selected_subset") or 0) - (of_paper or 0) == 1

    _write(pipeline, paper={}, lean=LEAN | {"keep": {"documents": 3}}, mix="lean")
    for _ in range(2):  # and the next run does not go back to paper
        mixed = materialized(pipeline.run(["training_corpus"]), "training_corpus")
        assert (mixed["selection"], mixed["dagster/row_count"]) == ("lean", 95 + 3)

    _write(pipeline, paper={})
    with pytest.raises(ValueError, match=r"selection 'lean': .*selections\.yaml does not define it"):
        pipeline.run(["score_thresholds"], "lean")
    assert len(pipeline.rows("selected_subset", selection="lean")) == 3
    assert _undefined(pipeline) == ["lean"]
    retire = definitions().resolve_job_def("retire_selections")
    with pytest.raises(ValueError, match=r"'paper': .* defines it; take it out of there first"):
        _retire(retire, pipeline, ["paper"])
    _retire(retire, pipeline, [])
    assert pipeline.instance.get_dynamic_partitions(SELECTIONS) == ["paper"]
    assert set(pipeline.rows("thresholds")["selection"]) == {"paper"}
    assert set(pipeline.rows("selected_subset")["selection"]) == {"paper"}
    assert _undefined(pipeline) == []


def _retire(job: dg.JobDefinition, pipeline: Pipeline, names: list[str]) -> None:
    config = {"ops": {"retire_named": {"config": {"selections": names}}}}
    job.execute_in_process(instance=pipeline.instance, run_config=config)


def _undefined(pipeline: Pipeline) -> list[str]:
    """What the check says is no longer defined."""
    found = definitions().resources or {}
    job = dg.Definitions(
        asset_checks=[every_selection_is_defined],
        jobs=[dg.define_asset_job("only", selection=dg.AssetSelection.checks(every_selection_is_defined))],
        resources=dict(found),
    ).resolve_job_def("only")
    (evaluation,) = job.execute_in_process(instance=pipeline.instance).get_asset_check_evaluations()
    gone = evaluation.metadata["no_longer_defined"].value
    assert evaluation.passed == (not gone)
    assert isinstance(gone, list)
    return gone
