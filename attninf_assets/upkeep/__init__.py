"""Everything under the root looked at, and mended."""
