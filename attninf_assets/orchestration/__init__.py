"""Assets, checks, automation and resources: the only folder that imports Dagster."""
