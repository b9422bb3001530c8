"""The job that indexes shards, and the sensor that requests it for new and replaced files."""

import json

import dagster as dg

from attninf_assets.corpus.arrivals import Arrivals, Memory, arrivals
from attninf_assets.corpus.documents import LandedShard
from attninf_assets.orchestration.assets.corpus import SOURCE_VERSION, raw_corpus
from attninf_assets.orchestration.connections.resources import CorpusResource
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS, corpus_shards
from attninf_assets.orchestration.runs.shard_work import INGEST_JOB

SHARDS_PER_TICK = 100
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
    "100 a tick.\n\nOn from the first start: indexing needs no device and copies no text. A file is left alone while "
    "it is being written; one that was replaced is indexed again; one that is gone is named in the tick's message, and "
    "its partition stays until `retire_shards` is run. No version of a file is requested twice, so a failure is not "
    "looped.",
)
def new_shards(context: dg.SensorEvaluationContext, corpus: CorpusResource) -> dg.SensorResult:
    """Requests for what is new or replaced, at most `SHARDS_PER_TICK`; the cursor remembers what was seen."""
    known = set(context.instance.get_dynamic_partitions(CORPUS_SHARDS))
    found = arrivals(
        corpus.open().landed_shards(),
        known,
        _from_cursor(context.cursor),
        indexed_version=lambda key: _indexed_version(context.instance, key),
        at_most=SHARDS_PER_TICK,
    )
    story = _story(found, n_known=len(known))
    context.log.info(story)
    requests = [_request(file, before=_last_indexed(context.instance, file.shard.key)) for file in found.new]
    requests += [_request(file) for file in found.replaced]
    return dg.SensorResult(
        dynamic_partitions_requests=[corpus_shards.build_add_request([file.shard.key for file in found.new])]
        if found.new
        else None,
        run_requests=requests,
        skip_reason=None if requests else dg.SkipReason(story),
        cursor=json.dumps({"checksums": found.memory.checksums, "young": found.memory.young}),
    )


def _request(file: LandedShard, *, before: dg.EventLogRecord | None = None) -> dg.RunRequest:
    """A run key is used once ever, so a retired shard whose very file is back (indexed `before`) needs another."""
    back = "" if before is None else f":back-{before.storage_id}"
    return dg.RunRequest(run_key=f"{file.shard.key}:{file.version}{back}", partition_key=file.shard.key)


def _from_cursor(cursor: str | None) -> Memory:
    if cursor is None:
        return Memory()
    stored = json.loads(cursor)
    return Memory(tuple(stored["checksums"]), stored["young"])


def _last_indexed(instance: dg.DagsterInstance, key: str) -> dg.EventLogRecord | None:
    found = instance.fetch_materializations(dg.AssetRecordsFilter(raw_corpus.key, asset_partitions=[key]), limit=1)
    return found.records[0] if found.records else None


def _indexed_version(instance: dg.DagsterInstance, key: str) -> str | None:
    record = _last_indexed(instance, key)
    if record is None or (materialization := record.asset_materialization) is None:
        return None
    stored = materialization.metadata.get(SOURCE_VERSION)
    return None if stored is None else str(stored.value)


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
