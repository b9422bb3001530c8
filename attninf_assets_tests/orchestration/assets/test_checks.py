"""Every check fails when what it watches over is broken in the tables."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from attninf_assets.definitions import definitions
from attninf_assets.store.schemas import TABLES
from attninf_assets_tests.support.graphql import asked
from attninf_assets_tests.support.pipeline import SHARDS, Pipeline, build_pipeline, checked, put_back

# fmt: off
OLDER: dict[str, tuple[list[str], list[str] | None]] = {  # columns and partitioning of release 0.1
    "thresholds": (
        [
            "domain", "fraction", "budget", "threshold_score", "threshold_doc_id", "n_documents", "n_selected",
            "tokens_total", "tokens_selected", "selector_fingerprint",
        ],
        None,
    ),
    "selected_subset": (["doc_id", "domain", "shard", "score", "n_tokens", "selector_fingerprint"], ["domain"]),
}
# fmt: on
LETTERS_A = {"domain": "letters", "shard": "a"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline in which everything was materialized once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipeline = build_pipeline(tmp_path_factory.mktemp("checks"), monkeypatch)
        pipeline.run_everything()
        yield pipeline


@pytest.fixture
def pipeline(finished: Pipeline, tmp_path: Path) -> Iterator[Pipeline]:
    """The finished pipeline, whose tables a test may break: they are put back afterwards."""
    with put_back(finished, tmp_path / "kept"):
        yield finished


def failing(pipeline: Pipeline, check: str, key: str | None = None) -> bool:
    """Run one check alone and say whether it failed."""
    return not checked(pipeline, check, key).passed


def rewrite(pipeline: Pipeline, table: str, change: Callable[[pl.DataFrame], pl.DataFrame], **where: str) -> None:
    rows = change(pipeline.rows(table, **where)).to_arrow()
    pipeline.lake.replace(table, pa.table(rows).cast(TABLES[table]), where=where)


def first(frame: pl.DataFrame, column: str, value: object) -> pl.DataFrame:
    """The frame with `value` in the first row of `column`."""
    replaced = pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(value)).otherwise(pl.col(column))
    return frame.with_columns(replaced.cast(frame.schema[column]).alias(column))


def test_all_are_content_with_an_undisturbed_pipeline(pipeline: Pipeline) -> None:
    assert not failing(pipeline, "every_document_is_scored_once", SHARDS[0])
    assert not failing(pipeline, "thresholds_keep_the_asked_fraction", "paper")


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("every_document_is_scored_once", lambda frame: frame[1:]),
        ("every_document_is_scored_once", lambda frame: pl.concat([frame, frame[:1]])),
        ("every_document_is_scored_once", lambda frame: first(frame, "text_sha256", "other")),
        ("losses_are_finite", lambda frame: first(frame, "loss_reference", float("nan"))),
        ("losses_are_finite", lambda frame: first(frame, "score", float("inf"))),
        ("losses_are_finite", lambda frame: first(frame, "loss_base", -1.0)),
        ("scores_follow_from_losses", lambda frame: first(frame, "score", 0.123)),
        ("scores_follow_from_losses", lambda frame: first(frame, "loss_reference", 9.0)),
        ("few_documents_without_score", lambda frame: first(frame, "score", None)),
        ("one_selector_per_partition", lambda frame: first(frame, "selector_fingerprint", "another")),
    ],
)
def test_checks_of_scores_notice(
    pipeline: Pipeline, check: str, change: Callable[[pl.DataFrame], pl.DataFrame]
) -> None:
    assert not failing(pipeline, check, SHARDS[0])
    rewrite(pipeline, "scores", change, **LETTERS_A)
    assert failing(pipeline, check, SHARDS[0])


_LISTED = """{ assetNodeOrError(assetKey: {path: ["%s"]}) { ... on AssetNode { assetChecksOrError { ... on AssetChecks {
  checks { name executionForLatestMaterialization { status evaluation { success partition description } } } } } } } }"""
_DETAIL = """query($check: String!) {
  assetCheckExecutions(assetKey: {path: ["attention_influence_scores"]}, checkName: $check, limit: 1) {
    status evaluation { success metadataEntries { label ... on IntMetadataEntry { intValue }
      ... on TableMetadataEntry { table { records } } } } } }"""


_BY_PARTITION = """{ assetNodeOrError(assetKey: {path: ["attention_influence_scores"]}) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name partitionStatuses {
    ... on AssetCheckDefaultPartitionStatuses { failedPartitions succeededPartitions } } } } } } } }"""
_HISTORY = """{ assetCheckExecutions(assetKey: {path: ["attention_influence_scores"]},
  checkName: "every_document_is_scored_once", limit: 100) { status } }"""


def judged_again(instance: dg.DagsterInstance) -> None:
    """All checks of both partitioned assets, in a run without a partition each."""
    everything = definitions().resolve_implicit_global_asset_job_def()
    keys = everything.asset_layer.asset_graph.asset_check_keys
    for asset in (dg.AssetKey("raw_corpus"), dg.AssetKey("attention_influence_scores")):
        checks = {key for key in keys if key.asset_key == asset}
        job = everything.get_subset(asset_selection=set(), asset_check_selection=checks)
        assert job.execute_in_process(instance=instance, raise_on_error=False).success


def test_without_a_partition_a_check_judges_all_of_them_and_list_and_detail_agree(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """As *Execute all* does on the page of the checks."""
    rewrite(pipeline, "scores", lambda frame: frame[1:], domain="letters", shard="b")
    rewrite(pipeline, "scores", lambda frame: first(frame, "score", None), **LETTERS_A)
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        instance.add_dynamic_partitions("corpus_shards", [*SHARDS, "notes.landed"])
        for asset in ("raw_corpus", "attention_influence_scores"):
            for key in SHARDS:
                instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key))
        judged_again(instance)
        with asked(instance) as ask:

            def listed(asset: str) -> dict[str, tuple[str, bool, str | None]]:
                found = ask(_LISTED % asset)["assetNodeOrError"]["assetChecksOrError"]["checks"]
                last = {check["name"]: check["executionForLatestMaterialization"] for check in found}
                return {
                    name: (run["status"], run["evaluation"]["success"], run["evaluation"]["partition"])
                    for name, run in last.items()
                    if name != "recomputed_scores_agree"  # which runs of the asset alone evaluate
                }

            assert {verdict[:2] for verdict in listed("raw_corpus").values()} == {("SUCCEEDED", True)}
            scores = listed("attention_influence_scores")
            failed = {name for name, verdict in scores.items() if verdict[:2] != ("SUCCEEDED", True)}
            assert failed == {
                "every_document_is_scored_once",
                "few_documents_without_score",
                "scores_follow_from_losses",
            }
            assert scores["every_document_is_scored_once"] == ("FAILED", False, "letters.b")
            found = ask(_BY_PARTITION)["assetNodeOrError"]["assetChecksOrError"]["checks"]
            by_partition = {check["name"]: check["partitionStatuses"] for check in found}
            assert by_partition["every_document_is_scored_once"] == {
                "failedPartitions": ["letters.b"],
                "succeededPartitions": ["letters.a", "notes.first"],
            }
            assert {name for name, statuses in by_partition.items() if statuses["failedPartitions"]} == failed
            judged_again(instance)
            assert len(ask(_HISTORY)["assetCheckExecutions"]) == 3 + 1 + 1  # partitions, then the whole, twice
            (detail,) = ask(_DETAIL, check="every_document_is_scored_once")["assetCheckExecutions"]
    assert (detail["status"], detail["evaluation"]["success"]) == ("FAILED", False)
    shown = {entry["label"]: entry for entry in detail["evaluation"]["metadataEntries"]}
    assert (shown["partitions"]["intValue"], shown["partitions_not_passed"]["intValue"]) == (3, 1)
    rows = [json.loads(record) for record in shown["by_partition"]["table"]["records"]]
    assert [(row["partition"], row["result"]) for row in rows] == [
        ("letters.b", "error"),
        ("letters.a", "passed"),
        ("notes.first", "passed"),
    ]
    assert "unscored: 1" in rows[0]["found"]


def test_ids_repeated_in_another_shard_are_noticed(pipeline: Pipeline) -> None:
    assert not failing(pipeline, "document_ids_are_unique", SHARDS[0])
    rewrite(pipeline, "documents", lambda frame: first(frame, "doc_id", "letters.b-0"), **LETTERS_A)
    assert failing(pipeline, "document_ids_are_unique", SHARDS[0])


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: first(frame, "n_selected", 11),
        lambda frame: first(frame, "fraction", 0.4),
        lambda frame: first(frame, "threshold_score", -5.0),
        lambda frame: first(frame, "threshold_doc_id", "zzz"),
        lambda frame: first(frame, "tokens_selected", 1),
    ],
)
def test_a_wrong_threshold_is_noticed(pipeline: Pipeline, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    rewrite(pipeline, "thresholds", change)
    assert failing(pipeline, "thresholds_keep_the_asked_fraction", "paper")


@pytest.mark.parametrize(
    "change", [lambda frame: frame[1:], lambda frame: first(frame, "selector_fingerprint", "another")]
)
def test_a_wrong_selection_is_noticed(pipeline: Pipeline, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    assert not failing(pipeline, "selection_is_what_the_thresholds_say", "paper")
    rewrite(pipeline, "selected_subset", change)
    assert failing(pipeline, "selection_is_what_the_thresholds_say", "paper")


def test_a_lake_of_before_selections_had_names_goes_on_without_a_hand(pipeline: Pipeline) -> None:
    """Its tables lack the columns that came with names, and were not partitioned by selection."""
    before = {name: pipeline.rows(name) for name in OLDER}
    for name, (columns, partitioned_by) in OLDER.items():
        shutil.rmtree(pipeline.lake.root.table_uri(name))
        rows = pa.table(before[name].select(columns).to_arrow())
        write_deltalake(pipeline.lake.root.table_uri(name), rows, partition_by=partitioned_by)
    with pytest.raises(ValueError, match="no thresholds of selection 'paper': materialize score_thresholds"):
        pipeline.run(["training_corpus"])
    pipeline.run(["score_thresholds", "selected_subset"])
    for name, rows in before.items():
        assert pipeline.rows(name).sort(rows.columns).equals(rows.sort(rows.columns))
    pipeline.run(["training_corpus", "lake_maintenance"])
    assert not failing(pipeline, "selection_is_what_the_thresholds_say", "paper")


def test_thresholds_of_other_scores_select_nothing_and_the_old_selection_stays(pipeline: Pipeline) -> None:
    before = pipeline.lake.version("selected_subset")
    rewrite(pipeline, "scores", lambda frame: first(frame, "n_tokens", 10_000), **LETTERS_A)
    with pytest.raises(ValueError, match="the thresholds of letters are not of the scores that there are now"):
        pipeline.run(["selected_subset"])
    assert pipeline.lake.version("selected_subset") == before
    pipeline.run(["score_thresholds", "selected_subset"])
    assert not failing(pipeline, "selection_is_what_the_thresholds_say", "paper")


def test_a_training_corpus_that_is_not_its_manifest_is_noticed(pipeline: Pipeline) -> None:
    (file,) = (Path(pipeline.lake.root.uri) / "training_corpus").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert failing(pipeline, "training_corpus_is_its_manifest")
