"""The sensor that renews `score_coverage` while shards are indexed and scored, and the job it requests."""

import json
import time
from typing import Any

import dagster as dg

from attninf_assets.orchestration.assets.checks import selection_waits_for_no_shard
from attninf_assets.orchestration.assets.coverage import score_coverage
from attninf_assets.orchestration.assets.selector import retrieval_heads
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets.orchestration.runs.shard_work import INDEXING, SCORING, makes_any, runs_at_work

RENEWED_EVERY = 300.0  # seconds, while something is at work

_WATCHED = [INDEXING, retrieval_heads.key, SCORING]
_ENDED_BADLY = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]
_LATEST_RUNS = 20  # that ended badly, among which the last of a watched asset is looked for

coverage_job = dg.define_asset_job(
    "renew_coverage",
    selection=dg.AssetSelection.assets(score_coverage) | dg.AssetSelection.checks(selection_waits_for_no_shard),
    description="See how far scoring is: score_coverage, and which shards a selection waits for.",
)


@dg.sensor(
    job=coverage_job,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Renews score_coverage every five minutes while shards are indexed or scored, and once when that is "
    "over or anything else that it tells of has changed.\n\nOn from the first start: it needs no device. The check "
    "selection_waits_for_no_shard is renewed with it.",
)
def coverage_watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Requests one renewal where something changed or is at work, never two at once, and none before a selector."""
    instance = context.instance
    if not instance.fetch_materializations(retrieval_heads.key, limit=1).records:
        return dg.SkipReason("there is no selector yet")
    if instance.get_runs_count(dg.RunsFilter(job_name=coverage_job.name, statuses=_UNFINISHED)):
        return dg.SkipReason("a renewal is under way")
    last: dict[str, Any] = json.loads(context.cursor) if context.cursor else {"at": 0.0, "seen": None}
    at_work = runs_at_work(instance, _WATCHED)
    seen = _seen(instance)
    since = time.time() - last["at"]
    if at_work and since < RENEWED_EVERY:
        return dg.SkipReason(f"renewed {since:.0f} s ago; {len(at_work):,} runs at work")
    if not at_work and seen == last["seen"]:
        return dg.SkipReason("nothing has changed")
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=json.dumps({"at": time.time(), "seen": seen}))


def _seen(instance: dg.DagsterInstance) -> list[Any]:
    """A mark of what the coverage tells of: it changes with every materialization, bad end and registration of it."""
    made = [instance.fetch_materializations(asset, limit=1).records for asset in _WATCHED]
    failed = instance.get_run_records(
        dg.RunsFilter(statuses=_ENDED_BADLY), limit=_LATEST_RUNS, order_by="update_timestamp"
    )
    relevant = [record.dagster_run.run_id for record in failed if makes_any(record.dagster_run, _WATCHED)]
    return [
        *(records[0].storage_id if records else None for records in made),
        relevant[0] if relevant else None,
        len(instance.get_dynamic_partitions(CORPUS_SHARDS)),
    ]
