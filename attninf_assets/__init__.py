"""Select reasoning-intensive pretraining data with AttentionInfluence (arXiv 2505.07293) in Dagster."""
