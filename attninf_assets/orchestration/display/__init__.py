"""What the UI shows: metadata and plots."""
