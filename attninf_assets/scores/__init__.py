"""The scores of the corpus: computed where missing or stale, staged, stored, counted, priced."""
