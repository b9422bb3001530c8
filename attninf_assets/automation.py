"""What runs by itself: jobs, and the sensor that notices new shards."""

import dagster as dg

from attninf_assets.assets.corpus import raw_corpus
from attninf_assets.partitions import CORPUS_SHARDS, corpus_shards
from attninf_assets.resources import CorpusResource

_SHARDS_PER_TICK = 100

ingest_job = dg.define_asset_job(
    "ingest_shards",
    selection=dg.AssetSelection.assets(raw_corpus),
    description="Index shards: raw_corpus for each.",
)


@dg.sensor(job=ingest_job, minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def new_shards(context: dg.SensorEvaluationContext, corpus: CorpusResource) -> dg.SensorResult | dg.SkipReason:
    """Registers the partition of every new file under the corpus file's globs and requests its indexing, 100 a tick."""
    known = set(context.instance.get_dynamic_partitions(CORPUS_SHARDS))
    landed = [shard.key for shard in corpus.shards()]
    new = [key for key in landed if key not in known][:_SHARDS_PER_TICK]
    if not new:
        return dg.SkipReason(f"no new shards; {len(landed)} are known")
    return dg.SensorResult(
        dynamic_partitions_requests=[corpus_shards.build_add_request(new)],
        run_requests=[dg.RunRequest(run_key=f"ingest:{key}", partition_key=key) for key in new],
    )
