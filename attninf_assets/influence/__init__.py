"""The method AttentionInfluence: probes, retrieval heads, losses, scores. Only torch, transformers and numpy."""
