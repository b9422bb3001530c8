"""What is kept: exact score thresholds per domain, the selected subset, the training corpus."""
