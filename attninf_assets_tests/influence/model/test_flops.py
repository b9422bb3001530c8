from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from attninf_assets.influence.model.flops import ModelFlops, model_flops
from attninf_assets.influence.model.head import BASE, Head, HeadSet
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets_tests.support.tiny_models import N_LAYERS, WINDOW, tiny_model

head_sets = st.frozensets(st.builds(Head, st.integers(0, N_LAYERS - 1), st.integers(0, 1)), max_size=4)
lengths_ = st.lists(st.integers(1, 30), min_size=1, max_size=6)


def counted(model: Any, n_tokens: int) -> int:
    """FLOPs of a plain forward pass over one document as torch counts them, attention over all pairs included."""
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.arange(n_tokens)[None] % 300 + 3, use_cache=False)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "name", ["llama", "llama_tied", "qwen3", "mistral", "gpt_neox", "olmo2", "phi3", "gpt2", "opt"]
)
def test_the_parts_add_up_to_what_torch_counts(name: str) -> None:
    model = tiny_model(name)
    streamed = StreamedModel(model)
    n = 24
    found = streamed.flops
    every_pair = N_LAYERS * found.pair * n * n  # eager attention computes the invisible pairs, too
    assert counted(model, n) == pytest.approx(n * (sum(found.layers) + found.head) + every_pair)


@given(lengths=lengths_, window=st.none() | st.integers(1, 12))
def test_visible_pairs_are_those_of_the_mask(lengths: list[int], window: int | None) -> None:
    one_layer = ModelFlops(layers=(0.0,), windows=(window,), pair=1.0, head=0.0)
    reach = 10**9 if window is None else window
    expected = sum(min(position + 1, reach) for length in lengths for position in range(length))
    assert one_layer.of(lengths, [BASE], n_predicted=0) == expected


@given(lengths=lengths_, streams=st.lists(head_sets, min_size=1, max_size=5))
def test_a_layer_counts_once_for_everything_that_streams_mask_up_to_it(
    lengths: list[int], streams: list[HeadSet]
) -> None:
    model = ModelFlops(layers=(2.0, 3.0, 5.0), windows=(None, 2, None), pair=1.0, head=7.0)
    work = set()  # (layer, all heads masked so far): to be done once
    for heads in streams:
        for layer in range(N_LAYERS):
            work.add((layer, tuple(sorted(head for head in heads if head.layer <= layer))))
    expected = 7.0 * 11 * len(set(streams))
    for layer, _ in work:
        for length in lengths:
            for position in range(length):
                expected += model.layers[layer] + min(position + 1, model.windows[layer] or length)
    assert model.of(lengths, streams, n_predicted=11) == expected


@given(lengths=lengths_, first=st.integers(0, N_LAYERS - 1))
def test_layers_below_the_first_masked_one_are_counted_once(lengths: list[int], first: int) -> None:
    model = ModelFlops(layers=(2.0, 3.0, 5.0), windows=(None,) * 3, pair=0.0, head=7.0)
    streams = [BASE, frozenset({Head(first, 0)})]
    n, predicted = sum(lengths), sum(lengths) - len(lengths)
    trunk, above = sum(model.layers[:first]), sum(model.layers[first:])
    assert model.of(lengths, streams, n_predicted=predicted) == n * (trunk + 2 * above) + 2 * predicted * 7
    everything = 2 * n * sum(model.layers) + 2 * predicted * 7
    assert model.of(lengths, streams, n_predicted=predicted, share_trunk=False) == everything


def test_layers_with_a_sliding_window_reach_back_as_far_as_it() -> None:
    assert StreamedModel(tiny_model("mistral")).flops.windows == (WINDOW,) * 3
    assert StreamedModel(tiny_model("gemma2")).flops.windows == (WINDOW, None, WINDOW)
    assert StreamedModel(tiny_model("llama")).flops.windows == (None,) * 3


def test_of_experts_only_those_a_token_meets_count() -> None:
    model = tiny_model("gpt_oss")  # two experts, one of them for each token
    layers = list(model.model.layers)
    experts = sum(2.0 * p.numel() for p in layers[0].parameters() if p.ndim == 3)
    others = sum(2.0 * p.numel() for p in layers[0].parameters() if p.ndim == 2 and "expert" not in str(p.shape))
    assert model_flops(model, layers).layers[0] == pytest.approx(experts / 2 + others)
