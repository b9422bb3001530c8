"""How well two sets of scores agree where it matters: in rank, and in what a selection would keep."""

import math

import numpy as np


def fidelity(found: np.ndarray, expected: np.ndarray) -> str:
    """Spearman's rank correlation, the share of the top 20 % in common, and the largest difference, in words."""
    spearman = float(np.corrcoef(found.argsort().argsort(), expected.argsort().argsort())[0, 1])
    n_top = max(1, math.ceil(0.2 * len(found)))
    shared = len(set(np.argsort(-found)[:n_top]) & set(np.argsort(-expected)[:n_top])) / n_top
    largest = abs(found - expected).max()
    return f"Spearman {spearman:.4f}, {shared:.0%} of the top 20 % in common, largest |Δscore| {largest:.1e}"
