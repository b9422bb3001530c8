import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.runtime.progress import BudgetHalved
from attninf_assets.influence.runtime.token_budget import TokenBudget, in_budget, is_out_of_memory

CPU = torch.device("cpu")
sizes_ = st.lists(st.integers(1, 30), max_size=20)


class SmallDevice:
    """Does its work on at most so many tokens at once; beyond, it fails as a device does."""

    def __init__(self, holds: int) -> None:
        self.holds = holds
        self.tried: list[list[int]] = []
        self.done: list[list[int]] = []

    def __call__(self, batch: list[int]) -> int:
        self.tried.append(batch)
        if sum(batch) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nProcess 1 has 3 GiB in use")
        self.done.append(batch)
        return sum(batch)


def worked(sizes: list[int], device: SmallDevice, token_budget: TokenBudget) -> tuple[list[int], list[BudgetHalved]]:
    reports: list[BudgetHalved] = []
    results = in_budget(
        sizes, device, size=lambda n: n, token_budget=token_budget, device=CPU, on_halved=reports.append
    )
    return list(results), reports


@given(sizes=sizes_, token_budget=st.integers(1, 60))
def test_batches_keep_the_order_respect_the_budget_and_could_not_have_held_one_more(
    sizes: list[int], token_budget: int
) -> None:
    device = SmallDevice(10**9)
    results, reports = worked(sizes, device, TokenBudget(token_budget))
    assert [n for batch in device.done for n in batch] == sizes
    assert results == [sum(batch) for batch in device.done]
    assert not reports
    for number, batch in enumerate(device.done):
        assert sum(batch) <= token_budget or len(batch) == 1
        if number + 1 < len(device.done):
            assert sum(batch) + device.done[number + 1][0] > token_budget


@given(sizes=sizes_, token_budget=st.integers(1, 500), holds=st.integers(30, 200))
def test_every_item_is_worked_on_exactly_once_in_order_whatever_the_memory_holds(
    sizes: list[int], token_budget: int, holds: int
) -> None:
    device = SmallDevice(holds)
    kept = TokenBudget(token_budget)
    _, reports = worked(sizes, device, kept)
    assert [n for batch in device.done for n in batch] == sizes
    assert len(device.tried) == len(device.done) + len(reports)
    assert all(report.tried > holds for report in reports)
    assert kept.tokens <= token_budget
    assert all(2 * report.tokens <= report.tried for report in reports)


def test_an_item_that_does_not_fit_alone_is_an_error_that_says_what_to_do() -> None:
    device = SmallDevice(holds=10)
    with pytest.raises(
        torch.OutOfMemoryError, match=r"cpu: 11 tokens .* use shorter windows .*Tried to allocate 2\.00"
    ):
        worked([4, 11], device, TokenBudget(4))
    assert device.done == [[4]]


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def work(batch: list[int]) -> int:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(in_budget([1, 2], work, size=int, token_budget=TokenBudget(9), device=CPU, on_halved=lambda _: None))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8.87 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_a_device_says_when_it_is_full_is_understood(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_what_the_hosts_own_allocator_says_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_a_halved_budget_is_remembered_for_the_same_device_model_and_window_only(tmp_path: Path) -> None:
    of: dict[str, str | int] = {"device": "NVIDIA H200, 140 GiB", "model": "abc", "window": 4096}
    first = TokenBudget(32768, memory=tmp_path, of=of)
    first.halve(30000, device=CPU)
    assert first.tokens == 15000
    assert TokenBudget(32768, memory=tmp_path, of=of).tokens == 15000
    assert TokenBudget(1024, memory=tmp_path, of=of).tokens == 1024, "what is remembered only lowers"
    assert TokenBudget(32768, memory=tmp_path, of=of | {"window": 2048}).tokens == 32768
    assert TokenBudget(32768, memory=tmp_path, of=of | {"model": "abd"}).tokens == 32768
    [file] = tmp_path.iterdir()
    assert json.loads(file.read_text()) == of | {"token_budget": 15000}


def test_a_small_batch_that_does_not_fit_lowers_the_budget_only_for_a_while(tmp_path: Path) -> None:
    """Something else has the device's memory: what is left of a chunk is no measure of what the device can hold."""
    token_budget = TokenBudget(32768, memory=tmp_path)
    token_budget.halve(550, device=CPU)
    assert token_budget.tokens == 275
    assert TokenBudget(32768, memory=tmp_path).tokens == 32768
    sizes = [200] * 3000
    device = SmallDevice(10**9)
    worked(sizes, device, token_budget)
    assert token_budget.tokens == 32768
    assert [n for batch in device.done for n in batch] == sizes
    token_budget.halve(20000, device=CPU)
    worked(sizes, device, token_budget)
    assert token_budget.tokens == 10000, "what did not fit when it was most of the budget is not tried again"


def test_what_is_remembered_only_ever_falls(tmp_path: Path) -> None:
    one, other = TokenBudget(1000, memory=tmp_path), TokenBudget(1000, memory=tmp_path)
    one.halve(600, device=CPU)
    other.halve(1000, device=CPU)
    assert other.tokens == 500
    assert TokenBudget(1000, memory=tmp_path).tokens == 300


def test_a_budget_without_a_memory_forgets(tmp_path: Path) -> None:
    TokenBudget(100).halve(100, device=CPU)
    assert TokenBudget(100).tokens == 100
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ['{"token_budget": 0}', '{"token_budget": "many"}', "{}", "", "[]"])
def test_a_memory_that_makes_no_sense_is_named(content: str, tmp_path: Path) -> None:
    TokenBudget(10, memory=tmp_path).halve(10, device=CPU)
    [file] = tmp_path.iterdir()
    file.write_text(content)
    with pytest.raises(ValueError, match=rf"{file.name}: .*delete the file"):
        TokenBudget(10, memory=tmp_path)


def test_a_halving_is_reported_in_words() -> None:
    report = TokenBudget(32768).halve(30000, device=torch.device("cuda:0"))
    assert str(report) == "cuda:0 ran out of memory at 30,000 tokens at once: going on with 15,000"
