"""The partitioning by shard, which all partitioned assets share, and the pool in which device work queues."""

import dagster as dg

# Keys are `<domain>.<shard>` in [a-z0-9_-]; a shard is one source file.
CORPUS_SHARDS = "corpus_shards"
corpus_shards = dg.DynamicPartitionsDefinition(name=CORPUS_SHARDS)

GPU_POOL = "gpu"
