"""The method: probes, retrieval heads, masking, losses and scores. Only torch, transformers and numpy."""
