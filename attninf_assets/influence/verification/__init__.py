"""The fast path compared with the model's own forward pass, before anything is scored."""
