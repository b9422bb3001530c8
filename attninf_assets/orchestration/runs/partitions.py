"""The partitionings, by shard and by named selection, and the pools in which work queues."""

import dagster as dg

# Keys are `<domain>.<shard>` in [a-z0-9_-]; a shard is one source file.
CORPUS_SHARDS = "corpus_shards"
corpus_shards = dg.DynamicPartitionsDefinition(name=CORPUS_SHARDS)

# Keys are the names in the selections file.
SELECTIONS = "selections"
selections = dg.DynamicPartitionsDefinition(name=SELECTIONS)

# Tags of a run over all partitions from one to another, in the order in which they were registered.
RANGE_START_TAG, RANGE_END_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

GPU_POOL = "gpu"
FEATURES_POOL = "document_features"  # one at a time by default, so that most places among the runs are left to others
