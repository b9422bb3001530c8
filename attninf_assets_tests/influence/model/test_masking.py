import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence.model.head import BASE, Head
from attninf_assets.influence.model.masking import head_mask_SH, running_mean_of_values

CPU = torch.device("cpu")
head_sets = st.frozensets(st.builds(Head, st.integers(0, 5), st.integers(0, 3)), max_size=6)


def test_heads_are_ordered_by_layer_then_index_and_named_for_people() -> None:
    assert sorted([Head(2, 0), Head(1, 3), Head(1, 2)]) == [Head(1, 2), Head(1, 3), Head(2, 0)]
    assert str(Head(18, 6)) == "L18H6"


@given(streams=st.lists(head_sets, min_size=1, max_size=4), layer=st.integers(0, 5))
def test_head_mask_marks_exactly_the_heads_of_each_stream_in_that_layer(
    streams: list[frozenset[Head]], layer: int
) -> None:
    mask_SH = head_mask_SH(streams, layer=layer, n_heads=4, device=CPU)
    expected = {(s, head.index) for s, heads in enumerate(streams) for head in heads if head.layer == layer}
    found = set() if mask_SH is None else {(s, h) for s, h in mask_SH.nonzero().tolist()}
    assert found == expected
    assert (mask_SH is None) == (not expected)


def test_base_model_masks_nothing() -> None:
    assert head_mask_SH([BASE], layer=0, n_heads=4, device=CPU) is None


@settings(deadline=None)
@given(
    length=st.integers(1, 40),
    window=st.none() | st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_running_mean_is_the_mean_over_the_visible_prefix(
    length: int, window: int | None, seed: int, dtype: torch.dtype
) -> None:
    value = torch.randn(2, 3, length, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)
    found = running_mean_of_values(value, window=window)
    assert found.dtype == dtype
    for position in range(length):
        first = 0 if window is None else max(0, position - window + 1)
        expected = value[:, :, first : position + 1].float().mean(dim=2)
        torch.testing.assert_close(
            found[:, :, position].float(), expected, atol=1e-2 if dtype != torch.float32 else 1e-5, rtol=1e-2
        )


@pytest.mark.parametrize("window", [None, 16])
def test_running_mean_stays_exact_over_thousands_of_positions(window: int | None) -> None:
    value = 5 + torch.randn(1, 1, 4096, 2, generator=torch.Generator().manual_seed(0))
    first = 0 if window is None else 4096 - window
    expected = value[0, 0, first:].double().mean(dim=0).float()
    found = running_mean_of_values(value, window=window)[0, 0, -1]
    # The window is a difference of float32 prefix sums of about 20,000, so good to about 2e-3 / 16.
    torch.testing.assert_close(found, expected, atol=5e-4, rtol=0)
