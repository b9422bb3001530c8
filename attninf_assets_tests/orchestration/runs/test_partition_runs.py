"""Runs that go through several partitions: every partition's events are what a run of it alone would leave."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from attninf_assets.corpus.documents import BadFileError
from attninf_assets.influence import engine
from attninf_assets.orchestration.assets.recomputation import RECOMPUTED_SCORES_AGREE
from attninf_assets.orchestration.runs import retries
from attninf_assets.orchestration.runs.partition_runs import (
    PartitionCheck,
    PartitionEvents,
    each_partition,
    every_partition_concerned,
)
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.orchestration.runs.shard_work import failure_reasons
from attninf_assets_tests.support.pipeline import PROBES, SELECTOR, SHARDS, Pipeline, build_pipeline

KEYS = ["a", "b", "c", "d"]
LETTERS = dg.StaticPartitionsDefinition(KEYS)
SCORES = dg.AssetKey("attention_influence_scores")
Materialize = Callable[[str], dg.MaterializeResult]


@dg.asset
def heads() -> dg.MaterializeResult:
    return dg.MaterializeResult(data_version=dg.DataVersion("heads"))


@dg.asset(partitions_def=LETTERS)
def corpus(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return dg.MaterializeResult(data_version=dg.DataVersion(f"corpus {context.partition_key} {context.run.run_id}"))


def result_of(key: str) -> dg.MaterializeResult:
    return dg.MaterializeResult(data_version=dg.DataVersion(f"scores {key}"), metadata={"position": KEYS.index(key)})


def scores_asset(materialize: Materialize, checks: Sequence[PartitionCheck] = ()) -> dg.AssetsDefinition:
    """An asset like ours, which makes each of its partitions so."""

    @dg.asset(partitions_def=LETTERS, deps=[corpus, heads], backfill_policy=dg.BackfillPolicy.multi_run(9))
    @transient_faults_retried
    def scores(context: dg.AssetExecutionContext) -> PartitionEvents:
        yield from each_partition(context, materialize, lake=None, checks=checks)  # type: ignore[arg-type]

    return scores


class World:
    """The inputs of `scores`, materialized once in an instance of their own."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.run([heads], "heads")
        for key in KEYS:
            self.run([corpus], "corpus", key)

    def run(
        self, assets: list[dg.AssetsDefinition], name: str, key: str | None = None, *, to: str | None = None
    ) -> dg.ExecuteInProcessResult:
        partitions = {"dagster/asset_partition_range_start": key or "", "dagster/asset_partition_range_end": to or ""}
        return dg.materialize(
            [heads, corpus, *(asset for asset in assets if asset not in (heads, corpus))],
            selection=name,
            instance=self.instance,
            partition_key=None if to else key,
            tags=partitions if to else None,
            raise_on_error=False,
        )

    def events(self, name: str = "scores") -> list[dg.AssetMaterialization]:
        """Materializations, oldest first."""
        records = self.instance.fetch_materializations(dg.AssetKey(name), limit=100, ascending=True).records
        return [record.asset_materialization for record in records if record.asset_materialization is not None]

    def stale(self, asset: dg.AssetsDefinition) -> list[str]:
        """The materialized partitions that the UI calls stale."""
        graph = dg.Definitions([heads, corpus, asset]).resolve_asset_graph()
        resolver = CachingStaleStatusResolver(self.instance, graph, LoadingContextForTest(self.instance))
        return [key for key in KEYS if resolver.get_status(asset.key, key) is StaleStatus.STALE]

    def partitions(self) -> list[str | None]:
        return [event.partition for event in self.events()]


@pytest.fixture
def world() -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance)


def failure(result: dg.ExecuteInProcessResult) -> str:
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_failure_data.error is not None
    error = failed.step_failure_data.error
    return (error.cause or error).message


def test_the_tags_are_those_that_dagster_gives_a_run_of_the_partition_alone(world: World) -> None:
    @dg.asset(name="scores", partitions_def=LETTERS, deps=[corpus, heads])
    def by_dagster(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return result_of(context.partition_key)

    runs = [world.run([by_dagster], "scores", "d"), world.run([scores_asset(result_of)], "scores", "d")]
    theirs, ours = (dict(event.tags or {}) for event in world.events())
    codes = [tags.pop("dagster/code_version") for tags in (theirs, ours)]
    assert codes == [run.run_id for run in runs]
    assert set(ours) >= {
        "dagster/data_version",
        "dagster/input_data_version/corpus",
        "dagster/input_event_pointer/heads",
    }
    assert ours == theirs


def test_a_code_version_and_an_input_outside_dagster_are_tagged_as_dagster_tags_them(world: World) -> None:
    files = dg.AssetSpec("files")

    def by_each_partition(context: dg.AssetExecutionContext) -> PartitionEvents:
        yield from each_partition(context, result_of, lake=None, checks=())  # type: ignore[arg-type]

    def by_dagster(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return result_of(context.partition_key)

    for function in (by_dagster, by_each_partition):
        asset = dg.asset(name="scores", partitions_def=LETTERS, deps=[files], code_version="7")(function)
        assert dg.materialize([files, asset], selection=[asset], instance=world.instance, partition_key="d").success
    theirs, ours = (dict(event.tags or {}) for event in world.events())
    assert ours == theirs
    assert ours["dagster/code_version"] == "7"
    assert ours["dagster/input_event_pointer/files"] == "NULL"


def test_each_partition_has_one_event_of_its_own_before_the_next_begins(world: World) -> None:
    seen: list[list[str | None]] = []

    def look(key: str) -> dg.MaterializeResult:
        seen.append(world.partitions())
        return result_of(key)

    assert world.run([scores_asset(look)], "scores", "a", to="c").success
    assert seen == [[], ["a"], ["a", "b"]]
    events = world.events()
    assert [event.partition for event in events] == ["a", "b", "c"]
    assert [(event.tags or {})["dagster/data_version"] for event in events] == ["scores a", "scores b", "scores c"]
    assert [event.metadata["position"].value for event in events] == [0, 1, 2]


def test_what_is_downstream_in_the_same_run_follows(world: World) -> None:
    @dg.asset(deps=["scores"])
    def thresholds() -> None: ...

    scores = scores_asset(result_of)
    result = dg.materialize(
        [heads, corpus, scores, thresholds],
        selection=["scores", "thresholds"],
        instance=world.instance,
        partition_key="a",
    )
    assert result.success
    assert len(world.events("thresholds")) == 1


def test_only_the_partition_whose_input_changed_is_stale(world: World) -> None:
    scores = scores_asset(result_of)
    world.run([scores], "scores", "a", to="d")

    assert world.stale(scores) == []
    world.run([corpus], "corpus", "b")
    assert world.stale(scores) == ["b"]
    world.run([scores], "scores", "a", to="d")
    assert world.stale(scores) == []


def test_an_input_that_lands_while_a_partition_is_made_makes_it_stale_and_no_other(world: World) -> None:
    def meanwhile(key: str) -> dg.MaterializeResult:
        if key == "b":
            world.run([corpus], "corpus", "b")
        return result_of(key)

    scores = scores_asset(meanwhile)
    world.run([scores], "scores", "a", to="c")
    assert world.stale(scores) == ["b"]


def test_broken_partitions_do_not_stop_the_others_and_all_are_named(world: World) -> None:
    def two_broken(key: str) -> dg.MaterializeResult:
        if key in "bd":
            raise ValueError(f"row 7 of {key} changed")
        return result_of(key)

    result = world.run([scores_asset(two_broken)], "scores", "a", to="d")
    assert not result.success
    assert world.partitions() == ["a", "c"]
    said = failure(result)
    assert "2 of the run's 4 partitions failed" in said
    assert "b (ValueError: row 7 of b changed)" in said
    assert "d (ValueError: row 7 of d changed)" in said
    assert failure_reasons(world.instance, dg.AssetKey("scores"), ["d", "b"]) == {
        "d": "row 7 of d changed",
        "b": "row 7 of b changed",
    }
    statuses = world.instance.get_status_by_partition(dg.AssetKey("scores"), KEYS, LETTERS) or {}
    assert {key: status.value for key, status in statuses.items() if status} == {
        "a": "MATERIALIZED",
        "b": "FAILED",
        "c": "MATERIALIZED",
        "d": "FAILED",
    }


def test_what_fails_for_all_and_a_check_that_fails_hide_no_partition_that_failed_before(world: World) -> None:
    visited: list[str] = []

    def broken(key: str) -> dg.MaterializeResult:
        visited.append(key)
        if key == "b":
            raise ValueError("row 7 changed")
        if key == "c":
            with every_partition_concerned():
                raise RuntimeError("no model")
        return result_of(key)

    def unjudged(key: str, lake: Any) -> dg.AssetCheckResult:
        raise KeyError(f"no table for {key}")

    check = PartitionCheck(dg.AssetKey("scores"), unjudged)
    result = world.run([scores_asset(broken, checks=[check])], "scores", "a", to="d")
    said = failure(result)
    assert visited == ["a", "b", "c"]
    assert "2 of the run's 4 partitions failed: b (ValueError: row 7 changed); c (RuntimeError: no model)" in said
    assert "unjudged of a (KeyError: 'no table for a')" in said


def test_a_transient_fault_of_one_partition_repeats_that_partition_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0)
    visited: list[str] = []

    def flaky(key: str) -> dg.MaterializeResult:
        visited.append(key)
        if key == "b" and visited.count("b") < 3:
            raise ConnectionResetError(104, "reset by peer")
        return result_of(key)

    assert world.run([scores_asset(flaky)], "scores", "a", to="c").success
    assert visited == ["a", "b", "c", "b", "b"]
    assert world.partitions() == ["a", "c", "b"]


def ended(result: dg.ExecuteInProcessResult) -> Any:
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    return failed.step_failure_data


def test_bad_input_ends_in_a_failure_with_file_row_and_reason_and_no_way_through_the_code(world: World) -> None:
    def changed(key: str) -> dg.MaterializeResult:
        if key == "b":
            raise BadFileError("/corpus/b.jsonl: row 7 changed", uri="/corpus/b.jsonl", row=7)
        if key == "c":
            raise ValueError("c is not indexed")
        return result_of(key)

    alone = ended(world.run([scores_asset(changed)], "scores", "b"))
    several = ended(world.run([scores_asset(changed)], "scores", "a", to="d"))
    for data, rows in [
        (alone, [("b", "/corpus/b.jsonl", "7", "/corpus/b.jsonl: row 7 changed")]),
        (several, [("b", "/corpus/b.jsonl", "7", "/corpus/b.jsonl: row 7 changed"), ("c", "", "", "c is not indexed")]),
    ]:
        table = data.user_failure_data.metadata["failed_partitions"]
        assert [tuple(record.data.values()) for record in table.records] == rows
        trace = data.error.to_string()
        assert "BadFileError" not in trace.replace("b (BadFileError", "")
        assert len(trace.splitlines()) < 30


def test_a_fault_of_the_code_keeps_its_traceback(world: World) -> None:
    def broken(key: str) -> dg.MaterializeResult:
        raise KeyError(key)

    result = world.run([scores_asset(broken)], "scores", "a")
    assert ended(result).user_failure_data is None
    said = [entry.user_message for entry in world.instance.all_logs(result.run_id)]
    assert any("a failed: KeyError: 'a'" in line and "in broken" in line for line in said)
    assert failure_reasons(world.instance, dg.AssetKey("scores"), ["a"]) == {"a": "KeyError: 'a'"}


def test_a_run_of_several_says_which_of_them_it_is_at(world: World) -> None:
    result = world.run([scores_asset(result_of)], "scores", "a", to="c")
    said = [entry.user_message for entry in world.instance.all_logs(result.run_id)]
    assert [line for line in said if "begins" in line] == [
        f"{key} (shard {place} of 3) begins" for place, key in enumerate("abc", start=1)
    ]


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Three shards indexed, a selector, nothing scored."""
    pipeline = build_pipeline(tmp_path, monkeypatch)
    pipeline.run(["raw_corpus"], SHARDS[0], to=SHARDS[-1])
    pipeline.run(SELECTOR, config=PROBES)
    return pipeline


def latest(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """The tags and metadata of every partition's last scoring."""
    found = {}
    for key in SHARDS:
        wanted = dg.AssetRecordsFilter(SCORES, asset_partitions=[key])
        for record in pipeline.instance.fetch_materializations(wanted, limit=1).records:
            event = record.asset_materialization
            assert event is not None
            found[key] = {**(event.tags or {}), **{name: value.value for name, value in event.metadata.items()}}
    return found


def test_a_run_of_several_shards_leaves_what_runs_of_each_alone_leave(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pipeline.run(["attention_influence_scores"], SHARDS[0], to=SHARDS[-1]).success
    together, scores = latest(pipeline), pipeline.rows("scores").drop("scored_at").sort("doc_id")
    alone = build_pipeline(tmp_path / "alone", monkeypatch)
    for key in SHARDS:
        alone.run(["raw_corpus"], key)
    alone.run(SELECTOR, config=PROBES)
    for key in SHARDS:
        alone.run(["attention_influence_scores"], key)
    assert alone.rows("scores").drop("scored_at").sort("doc_id").equals(scores)
    same = ["dagster/data_version", "dagster/input_data_version/raw_corpus", "documents_scored", "tokens"]
    for key, found in latest(alone).items():
        assert {name: found[name] for name in same} == {name: together[key][name] for name in same}


def checked(result: dg.ExecuteInProcessResult) -> dict[str, set[str | None]]:
    """The partitions that each check of a run was evaluated on."""
    found: dict[str, set[str | None]] = {}
    for evaluation in result.get_asset_check_evaluations():
        assert evaluation.passed
        assert evaluation.target_materialization_data is not None
        assert evaluation.target_materialization_data.run_id == result.run_id
        found.setdefault(evaluation.check_name, set()).add(evaluation.partition)
    found.pop(RECOMPUTED_SCORES_AGREE.name, None)  # of those alone that the run had to score
    return found


CHECKS = [
    "every_document_is_scored_once",
    "losses_are_finite",
    "scores_follow_from_losses",
    "few_documents_without_score",
    "one_selector_per_partition",
]


def test_every_check_is_evaluated_on_every_shard_of_the_run(pipeline: Pipeline) -> None:
    found = checked(pipeline.run(["attention_influence_scores"], SHARDS[0], to=SHARDS[-1]))
    assert found == {name: set(SHARDS) for name in CHECKS}


def test_a_shard_that_changed_behind_our_back_fails_alone_and_the_repeated_run_scores_it_alone(
    pipeline: Pipeline,
) -> None:
    path = pipeline.directory / "source/letters/b.parquet"
    whole = path.read_bytes()
    path.write_bytes(b"PAR1 but not for long")
    result = pipeline.run(["attention_influence_scores"], SHARDS[0], to=SHARDS[-1], raise_on_error=False)
    assert not result.success
    assert "1 of the run's 3 partitions failed: letters.b (" in failure(result)
    assert checked(result) == {name: {"letters.a", "notes.first"} for name in CHECKS}
    path.write_bytes(whole)
    assert pipeline.run(["attention_influence_scores"], SHARDS[0], to=SHARDS[-1]).success
    scored = {key: event["documents_scored"] for key, event in latest(pipeline).items()}
    assert scored == {"letters.a": 0, "letters.b": 25, "notes.first": 0}


def test_a_selector_that_changes_during_a_run_is_used_from_the_next_shard_on(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed: list[str] = []
    real = engine.load_model

    def change_once(*arguments: Any, **options: Any) -> Any:
        if not changed:
            changed.append("zero")
            pipeline.run(["retrieval_heads"], config={"retrieval_heads": {"config": {"mask": "zero"}}})
        return real(*arguments, **options)

    engine.load_engine.cache_clear()
    monkeypatch.setattr(engine, "load_model", change_once)
    pipeline.run(["attention_influence_scores"], SHARDS[0], to=SHARDS[-1])
    by_shard = pipeline.rows("scores").select("shard", "selector_fingerprint").unique().rows()
    assert len(by_shard) == 3
    fingerprints = dict(by_shard)
    assert fingerprints["a"] != fingerprints["b"] == fingerprints["first"]
    assert {key: event["selector_fingerprint"] for key, event in latest(pipeline).items()} == {
        "letters.a": fingerprints["a"],
        "letters.b": fingerprints["b"],
        "notes.first": fingerprints["first"],
    }
    heads = {key: event["dagster/input_data_version/retrieval_heads"] for key, event in latest(pipeline).items()}
    assert heads == {key: event["selector_fingerprint"] for key, event in latest(pipeline).items()}


def test_a_model_that_cannot_be_loaded_ends_the_run_at_once(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[int] = []

    def broken(*_: Any, **__: Any) -> Any:
        loads.append(1)
        raise ValueError("the architecture bypasses the interface")

    engine.load_engine.cache_clear()
    monkeypatch.setattr(engine, "load_model", broken)
    result = pipeline.run(["attention_influence_scores"], SHARDS[0], to=SHARDS[-1], raise_on_error=False)
    assert "the architecture bypasses the interface" in failure(result)
    assert loads == [1]


def test_how_many_shards_a_run_takes_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    from attninf_assets.definitions import definitions

    def policies() -> dict[str, int | None]:
        graph = definitions().resolve_asset_graph()
        names = ("raw_corpus", "attention_influence_scores")
        found = {name: graph.get(dg.AssetKey(name)).backfill_policy for name in names}
        return {name: policy.max_partitions_per_run if policy else None for name, policy in found.items()}

    assert policies() == {"raw_corpus": 25, "attention_influence_scores": 4}
    monkeypatch.setenv("ATTNINF_PARTITIONS_PER_RUN", "32")
    assert policies() == {"raw_corpus": 32, "attention_influence_scores": 32}
    for wrong in ("0", "many", "-3", "1.5"):
        monkeypatch.setenv("ATTNINF_PARTITIONS_PER_RUN", wrong)
        with pytest.raises(ValueError, match=f"ATTNINF_PARTITIONS_PER_RUN='{wrong}': not a number of partitions"):
            definitions()
