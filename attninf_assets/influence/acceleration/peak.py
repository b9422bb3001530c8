"""Measurement of a device's peak: the FLOP/s of a large matrix product."""

import time
from functools import lru_cache, partial

import torch

from attninf_assets.influence.acceleration.onednn import OneDnnLinear, has_fast_bfloat16, has_onednn
from attninf_assets.influence.runtime.token_budget import is_out_of_memory

_SIZE = {"cpu": 1536, "mps": 4096, "cuda": 8192}  # of the square matrices whose product is the peak
_REPEATS = 5


@lru_cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """The device's peak in FLOP/s, from `measured_peak` once in a process; None where the device has no memory for it.

    On a CPU that is slow in 16 bits it is the peak in float32.
    """
    slow = device.type == "cpu" and not has_fast_bfloat16(device)
    try:
        return measured_peak(device, torch.float32 if slow else dtype)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product in that type, the best of a few; takes a fraction of a second."""
    size = _SIZE[device.type]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    multiply = OneDnnLinear(b) if has_onednn(device) and dtype == torch.float32 else partial(torch.matmul, b)
    best = float("inf")
    for _ in range(_REPEATS):
        _synchronize(device)
        started = time.perf_counter()
        multiply(a)
        _synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
