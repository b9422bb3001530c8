"""The job that indexes shards, and the sensor that requests it for new and replaced files."""

import hashlib
import json
from collections.abc import Collection, Sequence
from functools import cached_property

import dagster as dg

from attninf_assets.corpus.arrivals import Arrivals, Memory, arrivals
from attninf_assets.corpus.documents import LandedShard
from attninf_assets.orchestration.assets.corpus import SOURCE_VERSION, raw_corpus
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS, RANGE_END_TAG, RANGE_START_TAG, corpus_shards
from attninf_assets.orchestration.runs.shard_work import INGEST_JOB

SHARDS_PER_TICK = 100
SHARDS_PER_RUN = 25  # indexed by one run: it costs seconds before its first shard, and a shard a fraction of one
_NAMED = 5  # shards named in a message

ingest_job = dg.define_asset_job(
    INGEST_JOB,
    selection=dg.AssetSelection.assets(raw_corpus),
    description="Index shards: raw_corpus for each.",
)


@dg.sensor(
    job=ingest_job,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers the partition of every new file under the corpus file's globs and requests its indexing; "
    "100 a tick, up to 25 of them by one run.\n\n"
    "On from the first start: indexing needs no device and copies no text. A file is left alone while "
    "it is being written; one that was replaced is indexed again, and so is one that is back after its documents were "
    "found elsewhere; one that is gone is named in the tick's message, and its partition stays until `retire_shards` "
    "is run. No version of a file is requested twice, so a failure is not looped. Where there is nothing else to do, "
    "a domain whose globs match nothing is an error of the tick, unless the corpus file says that it may be empty.",
)
def new_shards(context: dg.SensorEvaluationContext, corpus: CorpusResource, lake: LakeResource) -> dg.SensorResult:
    """Requests for what is new or replaced, at most `SHARDS_PER_TICK`; the cursor remembers what was seen."""
    sources = corpus.open()
    landed = sources.landed_shards()
    registered = context.instance.get_dynamic_partitions(CORPUS_SHARDS)
    known = set(registered)
    found = arrivals(
        landed,
        known,
        _from_cursor(context.cursor),
        indexed_version=_IndexedVersions(context.instance, lake),
        at_most=SHARDS_PER_TICK,
    )
    story = _story(found, n_known=len(known))
    context.log.info(story)
    run_keys = {
        file.shard.key: _run_key(file, before=_last_indexed(context.instance, file.shard.key))
        for file in [*found.new, *found.replaced]
    }
    in_order = [*registered, *(file.shard.key for file in found.new)]
    requests = [_request(keys, run_keys) for keys in neighbours(run_keys, in_order, at_most=SHARDS_PER_RUN)]
    return dg.SensorResult(
        dynamic_partitions_requests=[corpus_shards.build_add_request([file.shard.key for file in found.new])]
        if found.new
        else None,
        run_requests=requests,
        skip_reason=None if requests else dg.SkipReason(story),
        cursor=json.dumps({"checksums": found.memory.checksums, "young": found.memory.young}),
    )


def neighbours(wanted: Collection[str], in_order: Sequence[str], *, at_most: int) -> list[list[str]]:
    """The wanted keys, in lists of `at_most` that stand side by side in `in_order`: what a range of it can name."""
    lists: list[list[str]] = []
    before = None
    for key in in_order:
        if key in wanted:
            if lists and lists[-1][-1] == before and len(lists[-1]) < at_most:
                lists[-1].append(key)
            else:
                lists.append([key])
        before = key
    return lists


def _request(keys: list[str], run_keys: dict[str, str]) -> dg.RunRequest:
    """One run over partitions that stand side by side, under a run key made of theirs."""
    if len(keys) == 1:
        return dg.RunRequest(run_key=run_keys[keys[0]], partition_key=keys[0])
    digest = hashlib.sha256(json.dumps([run_keys[key] for key in keys]).encode()).hexdigest()
    tags = {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]}
    return dg.RunRequest(run_key=f"{keys[0]}...{keys[-1]}:{digest}", tags=tags)


def _run_key(file: LandedShard, *, before: dg.EventLogRecord | None = None) -> str:
    """A run key is used once ever, so a shard that was taken out and whose very file is back needs another: one that
    names the indexing `before`."""
    after = "" if before is None else f":after-{before.storage_id}"
    return f"{file.shard.key}:{file.version}{after}"


def _from_cursor(cursor: str | None) -> Memory:
    if cursor is None:
        return Memory()
    stored = json.loads(cursor)
    return Memory(tuple(stored["checksums"]), stored["young"])


def _last_indexed(instance: dg.DagsterInstance, key: str) -> dg.EventLogRecord | None:
    found = instance.fetch_materializations(dg.AssetRecordsFilter(raw_corpus.key, asset_partitions=[key]), limit=1)
    return found.records[0] if found.records else None


class _IndexedVersions:
    """The version of a shard's file that its index is of, as its last event says; None where the tables hold nothing of
    it: it was never indexed, or taken out since. The tables' logs are looked at the first time this is asked."""

    def __init__(self, instance: dg.DagsterInstance, lake: LakeResource) -> None:
        self._instance, self._lake = instance, lake

    def __call__(self, key: str) -> str | None:
        record = _last_indexed(self._instance, key) if key in self._stored else None
        if record is None or (materialization := record.asset_materialization) is None:
            return None
        stored = materialization.metadata.get(SOURCE_VERSION)
        return None if stored is None else str(stored.value)

    @cached_property
    def _stored(self) -> set[str]:
        tables = self._lake.tables()
        return {
            f"{partition['domain']}.{partition['shard']}"
            for name in ("documents", "quarantine")
            for partition in tables.partitions(name)
        }


def _story(found: Arrivals, *, n_known: int) -> str:
    parts = [f"{n_known:,} shards known"]
    for files, what in ((found.new, "new"), (found.replaced, "replaced")):
        if files:
            parts.append(f"{len(files):,} {what}: {_listed([file.shard.key for file in files])}")
    if found.n_later:
        parts.append(f"{found.n_later:,} more left for the next ticks")
    if found.n_young:
        parts.append(f"{found.n_young:,} perhaps still being written")
    if found.removed:
        parts.append(f"{len(found.removed):,} whose file is gone: {_listed(found.removed)}")
    return "; ".join(parts)


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (", …" if len(keys) > _NAMED else "")
