"""Copies of results from the device to the host that do not keep the device waiting for its next work."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")


class Arriving:
    """A tensor whose values are being copied to the host.

    The copy is queued behind the work that makes them, and reading waits for that work only.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self._ready: torch.cuda.Event | None = None
        if values.is_cuda:
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()
        else:
            self._host = values.cpu()

    def numpy(self) -> np.ndarray:
        """The values; waits until they are on the host."""
        if self._ready is not None:
            self._ready.synchronize()
        return self._host.numpy()


def one_behind(items: Iterable[T]) -> Iterator[T]:
    """The same items, one step late: each is handed out when the device is already at work on the next.

    An error raised while making an item is raised here, after the items before it.
    """
    held: list[T] = []
    try:
        for item in items:
            held.append(item)
            if len(held) > 1:
                yield held.pop(0)
    except Exception:
        yield from held
        raise
    yield from held
