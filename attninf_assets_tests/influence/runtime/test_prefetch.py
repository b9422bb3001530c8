import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence.runtime.prefetch import prefetched

SOON = 5.0  # seconds


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@settings(deadline=None)
@given(items=st.lists(st.none() | st.integers()), depth=st.integers(1, 4))
def test_the_same_items_come_in_the_same_order(items: list[int | None], depth: int) -> None:
    assert list(prefetched(items, depth=depth)) == items
    assert not running()


@settings(deadline=None)
@given(before=st.lists(st.integers(), max_size=5), depth=st.integers(1, 4))
def test_an_error_is_raised_after_the_items_before_it(before: list[int], depth: int) -> None:
    def failing() -> Iterator[int]:
        yield from before
        raise KeyError("shard 7 is unreadable")

    seen: list[int] = []
    with pytest.raises(KeyError, match="shard 7"):
        seen.extend(prefetched(failing(), depth=depth))
    assert seen == before
    assert not running()


def test_leaving_early_stops_the_thread_and_makes_no_more_items() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    for item in prefetched(endless(), depth=2):
        if item == 3:
            break
    assert eventually(lambda: not running())
    n_made = len(made)
    assert n_made <= 4 + 2 + 1, "the four taken, the two ready, and one in the making"
    time.sleep(0.02)
    assert len(made) == n_made


def test_an_error_of_the_consumer_stops_the_thread() -> None:
    def consume() -> None:
        for _ in prefetched(iter(int, 1)):
            raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        consume()
    assert eventually(lambda: not running())


def test_items_are_made_ahead_while_the_first_is_in_use_but_no_more_than_the_depth() -> None:
    made: list[int] = []

    def counting() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    items = prefetched(counting(), depth=3)
    assert next(items) == 0
    # One taken, three ready, and one that waits for room.
    assert eventually(lambda: len(made) == 5)
    time.sleep(0.15)
    assert len(made) == 5
    assert list(items) == list(range(1, 20))
