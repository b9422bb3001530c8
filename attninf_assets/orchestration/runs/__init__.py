"""Running partitions: several in one run, retries, dead runs, backfills from outside."""
