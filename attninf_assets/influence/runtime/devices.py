"""One device, one process: a lock per device, so that runs on one machine never share one.

A pool limits how many runs work at once, not where. The lock is the operating system's: it is gone with its process,
however that ends. `python -m attninf_assets.influence.runtime.devices` prints how many devices there are, for the
pool's limit.
"""

import fcntl
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

import torch

LOCKS = Path(tempfile.gettempdir()) / "attninf_assets_devices"
_PATIENCE = 60.0  # seconds


class DevicesBusyError(RuntimeError):
    """Every device is held by another process."""


@dataclass(frozen=True)
class HeldDevice:
    """A device that this process alone may use, as long as it lives or until `release`."""

    name: str  # as CUDA_VISIBLE_DEVICES has it
    lock: TextIOWrapper

    def release(self) -> None:
        """Release the device for other processes."""
        self.lock.close()


def cuda_devices() -> list[str]:
    """The CUDA devices this process may use, by the names CUDA_VISIBLE_DEVICES has for them; nothing is initialized."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() and name.strip() != "-1"]
    return [str(index) for index in range(torch.cuda.device_count())]


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


_claimed: list[HeldDevice] = []


def claim_device() -> str | None:
    """Hold a device for the rest of this process and make it the only one visible; None where there is no CUDA device.

    To be called before the process's first work on a device. Later calls return the device held already.
    """
    if _claimed:
        return _claimed[0].name
    devices = cuda_devices()
    if not devices:
        return None
    assert not torch.cuda.is_initialized(), "the device is claimed before the first CUDA call"
    held = hold_device(devices, locks=LOCKS)
    os.environ["CUDA_VISIBLE_DEVICES"] = held.name
    _claimed.append(held)
    return held.name


def choose_device() -> torch.device:
    """The device to compute on: CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """The kind of device with its memory, the same for every card of a kind."""
    if device.type != "cuda":
        return f"{device.type} {platform.node()}"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"


if __name__ == "__main__":
    print(max(1, len(cuda_devices())))
