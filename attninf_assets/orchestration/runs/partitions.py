"""The one partitioning of the project, and the pool its device work queues in."""

import dagster as dg

# Keys are `<domain>.<shard>` in [a-z0-9_-]; a shard is one source file.
CORPUS_SHARDS = "corpus_shards"
corpus_shards = dg.DynamicPartitionsDefinition(name=CORPUS_SHARDS)

GPU_POOL = "gpu"
