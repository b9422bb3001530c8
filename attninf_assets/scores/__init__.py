"""The scores of the corpus: brought up to date, staged, counted, priced."""
