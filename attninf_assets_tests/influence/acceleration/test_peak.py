"""The measured peak of a device."""

import pytest
import torch

from attninf_assets.influence.acceleration import peak
from attninf_assets.influence.acceleration.peak import measured_peak


def test_the_peak_is_that_of_the_quickest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peak._SIZE, "cpu", 64)
    clock = iter([0.0, 4.0, 5.0, 7.0, 8.0, 8.5, 9.0, 12.0, 20.0, 21.0])
    monkeypatch.setattr(peak.time, "perf_counter", lambda: next(clock))
    assert measured_peak(torch.device("cpu"), torch.float32) == 2 * 64**3 / 0.5


def test_where_there_is_no_memory_for_it_there_is_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(peak, "measured_peak", full)
    assert peak.peak_flops.__wrapped__(torch.device("cpu"), torch.float32) is None


@pytest.mark.parametrize(("fast", "measured"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_cpu_that_is_slow_in_16_bits_has_the_peak_of_float32(
    fast: bool, measured: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peak, "has_fast_bfloat16", lambda _: fast)
    monkeypatch.setattr(peak, "measured_peak", lambda _, dtype: {measured: 7.0}[dtype])
    assert peak.peak_flops.__wrapped__(torch.device("cpu"), torch.bfloat16) == 7.0
