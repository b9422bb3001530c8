"""Faster ways to compute the same: oneDNN, float8, compiled norms, and the peak they are measured against."""
