"""Jobs and sensors: indexing of new shards, rescoring, retirement of shards, alerts."""
