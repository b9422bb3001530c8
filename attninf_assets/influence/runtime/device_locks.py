"""A lock per device, so that processes on one machine never share one.

A pool limits how many runs work at once, not where. The lock is the operating system's: it is gone with its process,
however that ends.
"""

import fcntl
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

_PATIENCE = 60.0  # seconds


class DevicesBusyError(RuntimeError):
    """Every device is held by another process."""


@dataclass(frozen=True)
class HeldDevice:
    """A device that this process alone may use, as long as it lives or until `release`."""

    name: str  # as CUDA_VISIBLE_DEVICES has it
    lock: TextIOWrapper

    def release(self) -> None:
        """Unlock the device."""
        self.lock.close()


def hold_device(devices: Sequence[str], *, locks: Path, patience: float = _PATIENCE) -> HeldDevice:
    """Lock the first free device; the lock's file says who holds it.

    Raises `DevicesBusyError` if none was free for `patience` seconds.
    """
    locks.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    while True:
        for name in devices:
            if (held := _try_to_hold(name, locks)) is not None:
                return held
        if time.monotonic() >= deadline:
            raise DevicesBusyError(
                f"all {len(devices)} devices are in use ({', '.join(devices)}; locks in {locks}): "
                "is the pool's limit above the number of devices?"
            )
        time.sleep(0.05)


def _try_to_hold(name: str, locks: Path) -> HeldDevice | None:
    lock = (locks / f"{name.replace('/', '_')}.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    lock.seek(0)
    lock.truncate()
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return HeldDevice(name, lock)
