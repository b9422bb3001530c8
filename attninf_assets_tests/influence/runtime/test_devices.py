"""Device locks between real processes, on devices that need not exist."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attninf_assets.influence.runtime.devices import DevicesBusyError, claim_device, cuda_devices, hold_device

HOLD = """
import sys, time
from pathlib import Path
from attninf_assets.influence.runtime.devices import hold_device
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


def test_the_claimed_device_is_the_only_visible_one_and_claiming_again_changes_nothing(
    tmp_path: Path,
) -> None:
    code = "import os; from attninf_assets.influence.runtime.devices import claim_device; "
    code += "print(claim_device(), claim_device(), "
    code += "os.environ['CUDA_VISIBLE_DEVICES'])"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "4, 5", "TMPDIR": str(tmp_path)}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["4", "4", "4"]


@pytest.mark.parametrize(("value", "names"), [("", []), ("-1", []), ("0,2", ["0", "2"]), ("GPU-ab", ["GPU-ab"])])
def test_visible_devices_are_those_the_environment_names(
    value: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert cuda_devices() == names


def test_without_a_cuda_device_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert claim_device() is None
