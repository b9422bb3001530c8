"""The devices of this machine: how many there are, which one this process uses, and its name.

`python -m attninf_assets.influence.runtime.devices` prints how many there are, for the pool's limit.
"""

import os
import platform
import tempfile
from pathlib import Path

import torch

from attninf_assets.influence.runtime.device_locks import HeldDevice, hold_device

LOCKS = Path(tempfile.gettempdir()) / "attninf_assets_devices"


def cuda_devices() -> list[str]:
    """The CUDA devices this process may use, by the names CUDA_VISIBLE_DEVICES has for them; nothing is initialized."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() and name.strip() != "-1"]
    return [str(index) for index in range(torch.cuda.device_count())]


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
