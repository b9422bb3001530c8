"""How runs go: partitions, retries, liveness."""
