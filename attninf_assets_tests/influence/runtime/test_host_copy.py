from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.runtime.host_copy import Arriving, one_behind


@given(items=st.lists(st.integers() | st.none()))
def test_the_same_items_come_in_the_same_order(items: list[int | None]) -> None:
    assert list(one_behind(items)) == items


@given(before=st.lists(st.integers(), max_size=4))
def test_an_error_is_raised_after_the_items_before_it(before: list[int]) -> None:
    def failing() -> Iterator[int]:
        yield from before
        raise KeyError("shard 7 changed")

    seen: list[int] = []
    with pytest.raises(KeyError, match="shard 7"):
        seen.extend(one_behind(failing()))
    assert seen == before


def test_the_next_item_is_made_before_one_is_handed_out() -> None:
    events: list[str] = []

    def made() -> Iterator[int]:
        for number in range(3):
            events.append(f"made {number}")
            yield number

    for number in one_behind(made()):
        events.append(f"used {number}")
    assert events == ["made 0", "made 1", "used 0", "made 2", "used 1", "used 2"]


def test_values_arrive_as_they_are() -> None:
    values = torch.tensor([[1.5, -2.0], [0.0, 3.25]])
    np.testing.assert_array_equal(Arriving(values).numpy(), values.numpy())
