"""Making a selector: a model is pinned, its retrieval heads are detected, and the result is stored."""
