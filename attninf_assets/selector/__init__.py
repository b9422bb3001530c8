"""From a model's source to the selector that scores."""
