import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.runtime import progress
from attninf_assets.influence.runtime.progress import BudgetHalved, Progress, ProgressClock


@pytest.fixture
def clock_time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as its only item: set it to let time pass."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_reports_come_at_most_every_so_often_and_once_at_the_end(clock_time: list[float]) -> None:
    reports: list[Progress | BudgetHalved] = []
    clock = ProgressClock("probes", 10, reports.append, every=5.0)
    for _ in range(10):
        clock_time[0] += 2
        clock.advance(1, tokens=30)
    assert [(r.done, r.seconds) for r in reports if isinstance(r, Progress)] == [
        (3, 6.0),
        (6, 12.0),
        (9, 18.0),
        (10, 20.0),
    ]
    assert reports[-1] == Progress("probes", 10, 10, 300, 20.0)


@given(steps=st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_the_end_is_reported_however_fast_the_work(steps: list[int]) -> None:
    reports: list[Progress | BudgetHalved] = []
    clock = ProgressClock("bytes", sum(steps), reports.append, every=3600)
    for step in steps:
        clock.advance(step)
    assert [r.done for r in reports if isinstance(r, Progress)] == [sum(steps)]


def test_rates_and_the_time_left_are_over_the_whole_work() -> None:
    report = Progress("bytes", 250, 1000, tokens=600, seconds=30.0)
    assert report.tokens_per_second == 20
    assert report.seconds_left == 90
    assert str(report) == "250 of 1,000 bytes (25%), 20 tokens/s, 30 s so far, about 90 s left"


def test_documents_and_tokens_are_told_in_place_of_what_the_share_is_told_by(clock_time: list[float]) -> None:
    reports: list[Progress | BudgetHalved] = []
    clock = ProgressClock("bytes", 1000, reports.append)
    clock_time[0] += 10
    clock.advance(250, tokens=600, documents=3)
    clock_time[0] += 30
    clock.advance(750, tokens=1900, documents=4)
    assert [str(report).partition(" tokens/s")[0] for report in reports] == [
        "3 documents, 600 of about 2,400 tokens (25%), 60",
        "7 documents, 2,500 tokens (100%), 62",
    ]


def test_a_report_before_anything_is_done_divides_by_nothing() -> None:
    report = Progress("bytes", 0, 0, tokens=0, seconds=0.0)
    assert report.tokens_per_second == 0
    assert report.seconds_left == float("inf")
    assert "0 of 0 bytes (100%)" in str(report)


def test_a_report_says_how_much_of_the_peak_was_used_and_how_long_the_device_waited(clock_time: list[float]) -> None:
    reports: list[Progress | BudgetHalved] = []
    clock = ProgressClock("bytes", 2, reports.append, peak_flops=100.0)
    clock.waited(0.5)
    clock_time[0] += 5
    clock.advance(1, tokens=10, flops=300.0)
    clock.waited(0.5)
    clock_time[0] += 5
    clock.advance(1, tokens=10, flops=300.0)
    assert [(r.peak_share, r.idle_share) for r in reports if isinstance(r, Progress)] == [(0.6, 0.1), (0.6, 0.1)]
    assert str(reports[-1]) == (
        "2 of 2 bytes (100%), 2 tokens/s (60% of the peak), 10 s so far, 10% of them waiting for text, about 0 s left"
    )
