"""Features of documents that a score may stand for: repetition, boilerplate, duplicates, length."""
