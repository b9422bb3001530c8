"""Reading the corpus: shards and their files, rows made into documents or refused, the index of both."""
