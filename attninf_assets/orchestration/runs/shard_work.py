"""What Dagster knows of the runs that index and score: which shards are in one, which failed last, and why."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import dagster as dg

from attninf_assets.orchestration.runs.partition_runs import FAILED_PARTITIONS
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS, corpus_shards
from attninf_assets.scores.coverage import WorkOnShards

__all__ = [
    "INDEXING",
    "INGEST_JOB",
    "SCORING",
    "failure_reasons",
    "makes_any",
    "never_indexed",
    "runs_at_work",
    "work_on_shards",
]

INGEST_JOB = "ingest_shards"
INDEXING, SCORING = dg.AssetKey("raw_corpus"), dg.AssetKey("attention_influence_scores")

_MOST_RUNS = 1_000  # that have started and not ended
_LONGEST_REASON = 500  # characters


def work_on_shards(instance: dg.DagsterInstance) -> WorkOnShards:
    """What the instance knows of the registered shards; two cached lookups, whatever their number."""
    registered = instance.get_dynamic_partitions(CORPUS_SHARDS)
    indexing, scoring = (_statuses(instance, asset, registered) for asset in (INDEXING, SCORING))
    return WorkOnShards(
        indexed=instance.get_materialized_partitions(INDEXING),
        running=_with(indexing, "IN_PROGRESS") | _with(scoring, "IN_PROGRESS"),
        indexing_failed=_with(indexing, "FAILED"),
        scoring_failed=_with(scoring, "FAILED"),
        n_at_work=len(runs_at_work(instance, [SCORING])),
    )


def never_indexed(instance: dg.DagsterInstance, *, indexed: Collection[str]) -> list[str]:
    """The registered shards that no run has indexed, and that are not among the `indexed` ones of the tables."""
    known = instance.get_materialized_partitions(INDEXING).union(indexed)
    return sorted(key for key in instance.get_dynamic_partitions(CORPUS_SHARDS) if key not in known)


def runs_at_work(instance: dg.DagsterInstance, assets: Sequence[dg.AssetKey]) -> list[dg.DagsterRun]:
    """The runs that have started, have not ended, and make any of these assets. Those in a queue are not looked at."""
    started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]), limit=_MOST_RUNS)
    return [run for run in started if makes_any(run, assets)]


def makes_any(run: dg.DagsterRun, assets: Iterable[dg.AssetKey]) -> bool:
    """Whether the run makes any of these assets. One of a job of its own has no selection."""
    return not set(assets).isdisjoint({INDEXING} if run.job_name == INGEST_JOB else run.asset_selection or ())


def failure_reasons(instance: dg.DagsterInstance, asset: dg.AssetKey, keys: Sequence[str]) -> dict[str, str]:
    """Why the last run of each of these partitions failed, in one line; each run's events are read once."""
    attempts = instance.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        asset
    )
    runs = {key: attempts[key][0] for key in keys if key in attempts}
    reasons = {run_id: _reasons_of_run(instance, run_id) for run_id in dict.fromkeys(runs.values())}
    unknown: tuple[Mapping[str, str], str] = ({}, "the run is no longer known")
    found = {}
    for key in keys:
        by_partition, of_all = reasons.get(runs.get(key, ""), unknown)
        found[key] = (by_partition.get(key) or of_all)[:_LONGEST_REASON]
    return found


def _reasons_of_run(instance: dg.DagsterInstance, run_id: str) -> tuple[Mapping[str, str], str]:
    """What a failed run said of its partitions, and what stands for one of which it said nothing."""
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        assert record.dagster_event is not None
        failure = record.dagster_event.step_failure_data
        told = failure.user_failure_data
        if told is not None:
            stored = told.metadata.get(FAILED_PARTITIONS)
            by_partition = {row["partition"]: row["reason"] for row in _rows(stored)}
            return by_partition, f"not reached: {told.description or 'the run failed before'}"
        error = failure.error
        while error is not None and error.cause is not None:
            error = error.cause
        return {}, error.message.strip() if error is not None else "the step failed"
    return {}, f"run {run_id} ended without an error of its own: it was killed or cancelled"


def _rows(stored: object) -> list[dict[str, str]]:
    if not isinstance(stored, dg.TableMetadataValue):
        return []
    return [{name: str(value) for name, value in record.data.items()} for record in stored.records]


def _statuses(instance: dg.DagsterInstance, asset: dg.AssetKey, registered: Sequence[str]) -> Mapping[str, str]:
    statuses = instance.get_status_by_partition(asset, registered, corpus_shards) or {}
    return {key: status.value for key, status in statuses.items() if status is not None}


def _with(statuses: Mapping[str, str], status: str) -> set[str]:
    return {key for key, value in statuses.items() if value == status}
