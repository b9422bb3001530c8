"""What a trainer reads: the corpus and the selected subset, mixed and shuffled."""
