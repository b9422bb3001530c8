"""The assets together: what a first run leaves, what a second run costs, what a change touches."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import torch

from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import SCORING_VERSION
from attninf_assets.selector.stored import current_fingerprint, current_selector
from attninf_assets_tests.support.pipeline import (
    PROBES,
    SELECTION,
    SELECTOR,
    SHARDS,
    Pipeline,
    build_pipeline,
    materialized,
)
from attninf_assets_tests.support.planted_model import PLANTED


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline in which everything was materialized once; tests that change it build their own."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipeline = build_pipeline(tmp_path_factory.mktemp("finished"), monkeypatch)
        pipeline.run_everything()
        yield pipeline


def test_the_planted_head_becomes_the_retrieval_head(finished: Pipeline) -> None:
    heads = finished.rows("head_scores").filter("is_retrieval_head")
    assert [Head(row["layer"], row["head"]) for row in heads.to_dicts()] == [PLANTED]
    others = finished.rows("head_scores").filter(~pl.col("is_retrieval_head"))
    assert heads["retrieval_score"].item() > 0.5 > 4 * others.select(pl.max("retrieval_score")).item()


def test_every_document_has_one_score_by_the_selector_in_use(finished: Pipeline) -> None:
    documents, scores = finished.rows("documents"), finished.rows("scores")
    fingerprint = current_fingerprint(finished.lake.root)
    assert sorted(scores["doc_id"]) == sorted(documents["doc_id"])
    assert set(scores["selector_fingerprint"]) == {fingerprint}
    error = (pl.col("score") - (pl.col("loss_reference") / pl.col("loss_base") - 1)).abs().max()
    assert scores.select(error).item() < 1e-9


def test_repetition_is_what_the_planted_head_is_paid_for(finished: Pipeline) -> None:
    """The planted head only helps where a text repeats itself, so the repeated documents score highest."""
    scores = finished.rows("scores").join(finished.rows("documents"), on=["domain", "shard", "doc_id"])
    repeated = pl.col("source_row") % 5 == 0
    lowest, highest = scores.filter(repeated).select(pl.min("score")), scores.filter(~repeated).select(pl.max("score"))
    assert lowest.item() > highest.item()


def test_the_top_fifth_of_each_domain_is_selected(finished: Pipeline) -> None:
    thresholds = finished.rows("thresholds").sort("domain")
    assert thresholds.select("domain", "n_documents", "n_selected").rows() == [("letters", 50, 10), ("notes", 25, 5)]
    for row in thresholds.to_dicts():
        scores = finished.rows("scores").filter(domain=row["domain"]).sort("score", "doc_id", descending=True)
        chosen = finished.rows("selected_subset").filter(domain=row["domain"])
        assert set(chosen["doc_id"]) == set(scores["doc_id"][: row["n_selected"]])


def test_the_training_corpus_is_the_corpus_and_the_selected_subset(finished: Pipeline) -> None:
    rows = pl.read_parquet(Path(finished.lake.root.uri) / "training_corpus" / "*.parquet")
    assert sorted(rows.filter(source="corpus")["doc_id"]) == sorted(finished.rows("documents")["doc_id"])
    assert sorted(rows.filter(source="selected")["doc_id"]) == sorted(finished.rows("selected_subset")["doc_id"])
    assert rows.filter(source="corpus")["doc_id"].to_list() != sorted(rows.filter(source="corpus")["doc_id"])


def test_a_second_run_writes_nothing_anywhere(finished: Pipeline) -> None:
    tables = ["documents", "quarantine", "head_scores", "scores", "thresholds"]
    before = {name: finished.lake.version(name) for name in tables if name != "head_scores"}
    for key in SHARDS:
        finished.run(["raw_corpus"], key)
    heads = materialized(finished.run(SELECTOR, config=PROBES), "retrieval_heads")
    scored = [
        materialized(finished.run(["attention_influence_scores"], key), "attention_influence_scores") for key in SHARDS
    ]
    mix = materialized(finished.run(SELECTION), "training_corpus")
    assert heads["detection_reused"] is True
    assert [s["documents_scored"] for s in scored] == [0, 0, 0]
    assert [s["documents_reused"] for s in scored] == [25, 25, 25]
    chosen = finished.rows("selected_subset").group_by("domain", "shard").len().to_dicts()
    shares = {f"{row['domain']}.{row['shard']}": row["len"] / 25 for row in chosen}
    assert [s["share_selected"] for s in scored] == [shares.get(key, 0.0) for key in SHARDS]
    assert mix["rewritten"] is False
    assert {name: finished.lake.version(name) for name in before} == before


# A process of its own, as a run is one; with the checks of what it materializes, as a run has them.
RUNS_THAT_DO_NOT_COMPUTE = """
import sys
import dagster as dg
from attninf_assets.definitions import definitions
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS, RANGE_END_TAG, RANGE_START_TAG

home, *shards = sys.argv[1:]
with dg.DagsterInstance.local_temp(home) as instance:
    instance.add_dynamic_partitions(CORPUS_SHARDS, shards)
    instance.add_dynamic_partitions("selections", ["paper"])
    job = definitions().resolve_implicit_global_asset_job_def()
    of_all_shards = {RANGE_START_TAG: shards[0], RANGE_END_TAG: shards[-1]}
    for asset, tags in {
        "raw_corpus": of_all_shards,
        "attention_influence_scores": of_all_shards,
        "score_coverage": {},
        "score_thresholds": {"dagster/partition": "paper"},
        "selected_subset": {"dagster/partition": "paper"},
        "training_corpus": {},
    }.items():
        done = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(asset)], tags=tags)
        loaded = sorted({"torch", "transformers"} & sys.modules.keys())
        print(asset, len(done.get_asset_materialization_events()), *loaded)
"""


def test_runs_that_do_not_compute_load_neither_torch_nor_transformers(finished: Pipeline, tmp_path: Path) -> None:
    """Indexing, thresholds, selection and mix; and scoring, where every score is current."""
    command = [sys.executable, "-c", RUNS_THAT_DO_NOT_COMPUTE, str(tmp_path), *SHARDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "raw_corpus 3",
        "attention_influence_scores 3",
        "score_coverage 1",
        "score_thresholds 1",
        "selected_subset 1",
        "training_corpus 1",
    ]


def test_all_checks_pass(finished: Pipeline) -> None:
    results = [
        *finished.run(["raw_corpus", "attention_influence_scores"], SHARDS[0]).get_asset_check_evaluations(),
        *finished.run([*SELECTOR, *SELECTION], config=PROBES).get_asset_check_evaluations(),
    ]
    assert {r.check_name for r in results} >= {
        "document_ids_are_unique",
        "every_document_is_scored_once",
        "losses_are_finite",
        "scores_follow_from_losses",
        "one_selector_per_partition",
        "retrieval_heads_matter",
        "thresholds_keep_the_asked_fraction",
        "selection_is_what_the_thresholds_say",
        "training_corpus_is_its_manifest",
    }
    # One masked head is the whole set, so it cannot be called dominating.
    assert [r.check_name for r in results if not r.passed] == []


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline of the test's own, scored once."""
    pipeline = build_pipeline(tmp_path, monkeypatch)
    pipeline.run(["raw_corpus"], SHARDS[0])
    pipeline.run(SELECTOR, config=PROBES)
    pipeline.run(["attention_influence_scores"], SHARDS[0])
    return pipeline


def test_changing_one_document_rescores_one_document(pipeline: Pipeline) -> None:
    before = pipeline.rows("scores")
    texts = pl.read_parquet(pipeline.directory / "source/letters/a.parquet")["text"].to_list()
    pipeline.write_shard("letters.a", ["An entirely new sentence stands here now.", *texts[1:]])
    pipeline.run(["raw_corpus"], "letters.a")
    result = materialized(pipeline.run(["attention_influence_scores"], "letters.a"), "attention_influence_scores")
    after = pipeline.rows("scores")
    assert (result["documents_scored"], result["documents_reused"]) == (1, 24)
    unchanged = pl.col("doc_id") != "letters.a-0"
    assert before.filter(unchanged).sort("doc_id").equals(after.filter(unchanged).sort("doc_id"))
    assert len(after) == 25


def test_a_document_that_left_the_corpus_leaves_the_scores(pipeline: Pipeline) -> None:
    texts = pl.read_parquet(pipeline.directory / "source/letters/a.parquet")["text"].to_list()
    pipeline.write_shard("letters.a", texts[:-1])
    pipeline.run(["raw_corpus"], "letters.a")
    result = materialized(pipeline.run(["attention_influence_scores"], "letters.a"), "attention_influence_scores")
    assert (result["documents_scored"], result["documents_reused"]) == (0, 24)
    assert len(pipeline.rows("scores")) == 24


def test_a_source_that_changed_after_indexing_is_never_scored_under_the_old_id(pipeline: Pipeline) -> None:
    pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"mask": "zero"}}})
    texts = pl.read_parquet(pipeline.directory / "source/letters/a.parquet")["text"].to_list()
    pipeline.write_shard("letters.a", [*texts[:7], "Swapped behind our back.", *texts[8:]])
    with pytest.raises(dg.Failure, match=r"a\.parquet: row 7 is no longer document 'letters\.a-7'.*raw_corpus"):
        pipeline.run(["attention_influence_scores"], "letters.a")


def test_another_selector_rescores_everything_and_rows_never_mix(pipeline: Pipeline) -> None:
    before = current_selector(pipeline.lake.root)
    pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"mask": "zero"}}})
    after = current_selector(pipeline.lake.root)
    assert before.fingerprint != after.fingerprint
    result = materialized(pipeline.run(["attention_influence_scores"], "letters.a"), "attention_influence_scores")
    assert result["documents_scored"] == 25
    assert set(pipeline.rows("scores")["selector_fingerprint"]) == {after.fingerprint}
    assert set(pipeline.rows("head_scores")["selector_fingerprint"]) == {before.fingerprint, after.fingerprint}


def test_data_versions_change_with_content_and_selector_only(pipeline: Pipeline) -> None:
    def versions(*assets: str) -> dict[str, str]:
        keys = [
            (name, "letters.a" if name in ("raw_corpus", "attention_influence_scores") else None) for name in assets
        ]
        found = {}
        for name, key in keys:
            record = pipeline.instance.fetch_materializations(
                dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=[key] if key else None), limit=1
            ).records[0]
            assert record.asset_materialization is not None
            found[name] = (record.asset_materialization.tags or {})["dagster/data_version"]
        return found

    everything = ("raw_corpus", *SELECTOR, "attention_influence_scores")
    first = versions(*everything)
    pipeline.run(["raw_corpus"], "letters.a")
    pipeline.run(SELECTOR, config=PROBES)
    pipeline.run(["attention_influence_scores"], "letters.a")
    assert versions(*everything) == first
    pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"max_tokens": 100}}})
    pipeline.run(["attention_influence_scores"], "letters.a")
    changed = versions(*everything)
    assert {name for name in everything if changed[name] != first[name]} == {
        "retrieval_heads",
        "attention_influence_scores",
    }


def test_thresholds_wait_until_every_domain_is_complete(pipeline: Pipeline) -> None:
    pipeline.run(["raw_corpus"], "notes.first")
    with pytest.raises(ValueError, match=r"without a current score in notes \(0 of 25\)"):
        pipeline.run(SELECTION)
    allowed = {"score_thresholds": {"config": {"min_coverage": 0.0}}}
    pipeline.run(["score_thresholds"], config=allowed)
    assert pipeline.rows("thresholds")["domain"].to_list() == ["letters"]
    pipeline.run(["attention_influence_scores"], "notes.first")
    with pytest.raises(ValueError, match=r"shards that were never indexed: letters\.b: materialize their raw_corpus"):
        pipeline.run(["score_thresholds"])
    said = materialized(pipeline.run(["score_thresholds"], config=allowed), "score_thresholds")
    assert said["n_documents"] == 50
    (waits,) = [
        check
        for check in pipeline.run(["score_thresholds"], config=allowed).get_asset_check_evaluations()
        if check.check_name == "selection_waits_for_no_shard"
    ]
    assert not waits.passed
    named = waits.metadata["waits_for"]
    assert isinstance(named, dg.TableMetadataValue)
    assert [dict(row.data) for row in named.records] == [{"shard": "letters.b", "state": "not indexed", "reason": ""}]


def test_a_broken_shard_fails_alone(pipeline: Pipeline) -> None:
    (pipeline.directory / "source/letters/b.parquet").write_bytes(b"PAR1 but not for long")
    with pytest.raises(dg.Failure, match=r"b\.parquet"):
        pipeline.run(["raw_corpus"], "letters.b")
    pipeline.run(["raw_corpus"], "notes.first")
    assert set(pipeline.rows("documents")["shard"]) == {"a", "first"}


def test_refused_rows_are_quarantined_with_a_reason_and_the_rest_goes_on(pipeline: Pipeline) -> None:
    pipeline.write_shard("notes.first", ["fine here", "", "fine there"])
    result = pipeline.run(["raw_corpus"], "notes.first")
    assert pipeline.rows("quarantine").select("shard", "source_row", "reason").rows() == [("first", 1, "text is empty")]
    assert len(pipeline.rows("documents", domain="notes", shard="first")) == 2
    failed = [r.check_name for r in result.get_asset_check_evaluations() if not r.passed]
    assert failed == ["quarantine_is_small"]


def test_an_id_that_another_shard_has_is_refused(pipeline: Pipeline) -> None:
    path = pipeline.directory / "source/letters/b.parquet"
    pl.DataFrame({"id": ["letters.a-3", "new"], "text": ["one text", "another text"]}).write_parquet(path)
    pipeline.run(["raw_corpus"], "letters.b")
    assert pipeline.rows("documents", domain="letters", shard="b")["doc_id"].to_list() == ["new"]
    assert "letters.a-3" in pipeline.rows("quarantine")["reason"].item()


def test_the_manifest_says_what_the_mix_was_made_from(finished: Pipeline) -> None:
    manifest = json.loads((Path(finished.lake.root.uri) / "training_corpus/manifest.json").read_text())
    assert manifest["provenance"]["selector_fingerprint"] == current_fingerprint(finished.lake.root)
    assert {row["domain"]: row["n_selected"] for row in manifest["provenance"]["selection"]} == {
        "letters": 10,
        "notes": 5,
    }


def test_a_mix_of_a_selection_that_is_not_the_thresholds_is_refused_and_a_new_selection_is_mixed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build_pipeline(tmp_path, monkeypatch)
    pipeline.run_everything()
    pipeline.define(paper={"keep": {"fraction": 0.5}})
    with pytest.raises(ValueError, match="'paper' was defined otherwise when its thresholds were found"):
        pipeline.run(["selected_subset"])
    pipeline.run(["score_thresholds"])
    with pytest.raises(ValueError, match=r"domain 'letters': 10 documents are selected, its threshold says 25"):
        pipeline.run(["training_corpus"])
    mix = materialized(pipeline.run(["selected_subset", "training_corpus"]), "training_corpus")
    assert mix["rewritten"] is True
    assert mix["dagster/row_count"] == 75 + 25 + 13


def test_selection_and_mix_before_their_inputs_say_what_to_materialize(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build_pipeline(tmp_path, monkeypatch)
    with pytest.raises(dg.Failure, match="materialize retrieval_heads first"):
        pipeline.run(["attention_influence_scores"], "letters.a")
    pipeline.run(SELECTOR, config=PROBES)
    for asset, first in [("selected_subset", "score_thresholds"), ("training_corpus", "score_thresholds")]:
        with pytest.raises(ValueError, match=f"materialize {first}"):
            pipeline.run([asset])
    with pytest.raises(dg.Failure, match=r"letters\.a is not indexed: materialize raw_corpus"):
        pipeline.run(["attention_influence_scores"], "letters.a")


def test_after_a_new_selector_the_old_selection_is_not_mixed(pipeline: Pipeline) -> None:
    pipeline.run(SELECTION, config={"score_thresholds": {"config": {"min_coverage": 0.99}}})
    pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"mask": "zero"}}})
    with pytest.raises(ValueError, match="not by the selector in use"):
        pipeline.run(["training_corpus"])
    with pytest.raises(ValueError, match="materialize score_thresholds first"):
        pipeline.run(["selected_subset"])


def test_a_selector_of_another_scoring_version_scores_nothing(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attninf_assets.selector.stored.SCORING_VERSION", 999)
    said = f"scoring version {SCORING_VERSION}, this code of 999: materialize retrieval_heads"
    with pytest.raises(dg.Failure, match=said):
        pipeline.run(["attention_influence_scores"], "letters.a")


def test_a_damaged_detection_is_no_obstacle_and_is_made_anew(pipeline: Pipeline) -> None:
    fingerprint = current_fingerprint(pipeline.lake.root)
    (kept,) = Path(pipeline.lake.root.uri).glob("selectors/detections/*.json")
    content = json.loads(kept.read_bytes())
    kept.write_bytes(kept.read_bytes()[:-30])
    heads = [materialized(pipeline.run(SELECTOR, config=PROBES), "retrieval_heads") for _ in range(2)]
    assert [run["detection_reused"] for run in heads] == [False, True]
    assert json.loads(kept.read_bytes()) == content
    assert current_fingerprint(pipeline.lake.root) == fingerprint
    for told in ("predicted_seconds_of_detection", "seconds_of_detection", "evidence_over_detection"):
        assert heads[0][told] > 0  # where nothing was detected there is nothing to tell
        assert told not in heads[1]
    probes = pipeline.rows("retrieval_probes")["token_ids"].list.len()
    assert heads[0]["tokens_of_detection"] == probes.sum()
    assert heads[0]["evidence_plan"] == {"n_evidence_probes": 2, "n_random_sets": 3, "n_audit_probes": 1}


@pytest.mark.parametrize(
    ("config", "n_probes", "said"),
    [
        ({}, 16, "the plan 'small', the default on this device or for this selector; for 800 probes of 4,096 tokens "),
        ({"n_probes": 2}, 2, "the plan 'small', the default on this device or for this selector, with n_probes as "),
        ({"plan": "paper", "n_probes": 2}, 2, "the plan 'paper', as asked for, with n_probes as given"),
        ({"plan": "paper", "n_probes": 2, "probe_tokens": 700}, 2, "the numbers of the launchpad, n_probes and "),
    ],
)
def test_the_sizes_of_detection_fit_the_device_unless_given_and_are_told(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], n_probes: int, said: str
) -> None:
    monkeypatch.setattr("attninf_assets.influence.runtime.devices.choose_device", lambda: torch.device("cpu"))
    probes = materialized(
        pipeline.run(["retrieval_probes"], config={"retrieval_probes": {"config": config}}), "retrieval_probes"
    )
    assert len(pipeline.rows("retrieval_probes")) == n_probes
    assert probes["plan"] == config.get("plan", "small")
    assert str(probes["sizes"]).startswith(said)
    assert max(pipeline.rows("retrieval_probes")["token_ids"].list.len()) <= config.get("probe_tokens", 1024)


def test_more_evidence_than_probes_is_refused_by_name_before_the_model_is_loaded(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="n_evidence_probes must be at most the number of probes, 6, is 7"):
        pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"n_evidence_probes": 7}}})


def test_heads_that_do_not_matter_are_not_put_to_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = build_pipeline(tmp_path, monkeypatch)
    monkeypatch.setattr("attninf_assets.influence.detection.MIN_EFFECT", 1e6)
    with pytest.raises(ValueError, match="the heads found do not matter"):
        pipeline.run(SELECTOR, config=PROBES)
    assert not pipeline.lake.root.exists("selectors/current.json")
