"""Seconds of the device: on the CPU those the process was given, so that other work on the machine does not count."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import torch

from attninf_assets.influence.acceleration.onednn import OneDnnLinear, has_onednn
from attninf_assets.influence.acceleration.peak import measured_peak

T = TypeVar("T")
_SIZE = 1536


@dataclass(frozen=True)
class Timed(Generic[T]):
    """What some work returned, and what it took."""

    result: T
    seconds: float  # of the device, over all its threads on the CPU
    wall: float


def timed(work: Callable[[], T], device: torch.device) -> Timed[T]:
    """Do the work, which has to end with numbers on the host, and time it."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    elapsed = time.perf_counter() - wall
    return Timed(result, time.process_time() - processor if device.type == "cpu" else elapsed, elapsed)


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product, by the same clock; on the CPU of float32, by the faster library."""
    if device.type != "cpu":
        return measured_peak(device, dtype)
    a, b = (torch.randn(_SIZE, _SIZE) for _ in range(2))
    libraries = [partial(torch.matmul, b)] + ([OneDnnLinear(b)] if has_onednn(device) else [])
    return max(rate(partial(library, a), 2 * _SIZE**3, device) for library in libraries)


@torch.inference_mode()
def rate(multiply: Callable[[], torch.Tensor], flops: float, device: torch.device) -> float:
    """FLOP/s of an operation of so many, the median of five."""

    def done() -> torch.Tensor:
        result = multiply()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return result

    _, *seconds = [timed(done, device).seconds for _ in range(6)]
    return flops / statistics.median(seconds)
