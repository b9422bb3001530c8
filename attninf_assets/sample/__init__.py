"""The sample corpus and the sample selector model, from the package index alone."""
