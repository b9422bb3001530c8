"""Device locks between real processes, on devices that need not exist."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attninf_assets.influence.runtime.device_locks import DevicesBusyError, hold_device

HOLD = """
import sys, time
from pathlib import Path
from attninf_assets.influence.runtime.device_locks import hold_device
held = hold_device(["0", "1"], locks=Path(sys.argv[1]), patience=60)
print(held.name, flush=True)
sys.stdin.readline()
"""


class Holder:
    """A process that holds one of two devices until it is told to end, or killed."""

    def __init__(self, locks: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(locks)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def device(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[list[Holder]]:
    started = [Holder(tmp_path) for _ in range(3)]
    yield started
    for holder in started:
        holder.process.kill()
        holder.process.communicate()


def test_processes_never_share_a_device_and_a_killed_ones_device_is_free(tmp_path: Path, holders: list[Holder]) -> None:
    deadline = time.monotonic() + 120
    held: dict[str, Holder] = {}
    by_pid = {str(holder.process.pid): holder for holder in holders}
    while len(held) < 2 and time.monotonic() < deadline:
        for path in tmp_path.glob("*.lock"):
            pid = path.read_text().strip()
            held |= {name: holder for name, holder in [(path.stem, by_pid.get(pid))] if holder}
        time.sleep(0.05)
    assert sorted(held) == ["0", "1"]
    assert {name: holder.device() for name, holder in held.items()} == {"0": "0", "1": "1"}
    with pytest.raises(DevicesBusyError, match=r"all 2 devices are in use \(0, 1;"):
        hold_device(["0", "1"], locks=tmp_path, patience=0.2)
    (waiting,) = [holder for holder in holders if holder not in held.values()]
    os.kill(held["1"].process.pid, signal.SIGKILL)
    assert waiting.device() == "1"


def test_a_released_device_can_be_held_again(tmp_path: Path) -> None:
    first = hold_device(["7"], locks=tmp_path)
    assert (tmp_path / "7.lock").read_text() == f"{os.getpid()}\n"
    with pytest.raises(DevicesBusyError):
        hold_device(["7"], locks=tmp_path, patience=0)
    first.release()
    hold_device(["7"], locks=tmp_path, patience=0).release()
