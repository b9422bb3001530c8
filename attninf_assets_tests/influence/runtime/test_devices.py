"""Which devices there are, and the one that a process claims."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attninf_assets.influence.runtime.devices import claim_device, cuda_devices


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
