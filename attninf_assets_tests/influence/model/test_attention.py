from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence.model import attention, kernels
from attninf_assets.influence.model.attention import AttentionPass, in_flight, packed_attention
from attninf_assets.influence.model.kernels import (
    Documents,
    Kernel,
    Logits,
    document_by_document,
    variable_length,
    variable_length_split,
    visible_QK,
)

N_HEADS, N_KEY_HEADS, SIZE = 4, 2, 4
Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def drawn(length: int, *, n_streams: int = 2, seed: int = 0) -> Case:
    """Random query, key, value: [S, heads, length, SIZE]."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(n_streams, heads, length, SIZE) for heads in (N_HEADS, N_KEY_HEADS, N_KEY_HEADS)]
    query, key, value = (torch.randn(shape, generator=generator) for shape in shapes)
    return 2 * query, 2 * key, value


def bounds_of(lengths: Sequence[int]) -> list[tuple[int, int]]:
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def there(bounds: list[tuple[int, int]]) -> Documents:
    return Documents.on(torch.device("cpu"), bounds)


def run(
    case: Case,
    bounds: list[tuple[int, int]],
    *,
    masked: torch.Tensor | None,
    mask: Any,
    kernel: Kernel = document_by_document,
    **kwargs: Any,
) -> Any:
    """Output [S, T, H, D] of the packed attention function in layer 5."""
    attention_pass = AttentionPass(there(bounds), {} if masked is None else {5: masked}, mask, kernel)
    module: Any = SimpleNamespace(layer_idx=5)
    with in_flight(attention_pass):
        return packed_attention(module, *case, None, scaling=0.3, **kwargs)[0]


def varlen_by_definition(
    q_XHD: torch.Tensor,
    k_XKD: torch.Tensor,
    v_XKD: torch.Tensor,
    offsets: torch.Tensor,
    offsets_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
    return_aux: Any,
    num_splits: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the variable-length kernel, which needs CUDA, is documented to return: outputs, and log-sum-exps [H, X]."""
    assert torch.equal(offsets, offsets_k)
    assert (offsets.dtype, return_aux.lse, num_splits) == (torch.int32, True, 1)
    assert max_q == max_k == offsets.diff().max()
    assert enable_gqa == (q_XHD.shape[1] != k_XKD.shape[1])
    out, lse_HX = torch.empty_like(q_XHD), torch.empty(q_XHD.shape[1], len(q_XHD))
    shared = [head // (q_XHD.shape[1] // k_XKD.shape[1]) for head in range(q_XHD.shape[1])]
    for start, end in pairwise(offsets.tolist()):
        for row in range(start, end):
            first = start if window_size[0] < 0 else max(start, row - window_size[0])
            for head, key_head in enumerate(shared):
                logits = k_XKD[first : row + window_size[1] + 1, key_head] @ q_XHD[row, head] * scale
                lse_HX[head, row] = logits.logsumexp(0)
                out[row, head] = logits.softmax(0) @ v_XKD[first : row + 1, key_head]
    return out, lse_HX


def varlen_of_old(
    *tensors: Any, scale: float, window_size: tuple[int, int], return_aux: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same before it knew key/value heads shared by query heads."""
    assert tensors[0].shape[1] == tensors[1].shape[1]
    return varlen_by_definition(
        *tensors, scale=scale, window_size=window_size, enable_gqa=False, return_aux=return_aux, num_splits=1
    )


def slowly(
    case: Case,
    bounds: list[tuple[int, int]],
    *,
    masked: torch.Tensor | None,
    mask: str,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
) -> torch.Tensor:
    """Row by row, head by head, stream by stream."""
    query, key, value = case
    out = torch.zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[3])
    for start, end in bounds:
        for stream in range(query.shape[0]):
            for head in range(query.shape[1]):
                shared = head // (query.shape[1] // key.shape[1])
                for row in range(start, end):
                    first = start if sliding_window is None else max(start, row - sliding_window + 1)
                    logits = (
                        torch.stack([query[stream, head, row] @ key[stream, shared, p] for p in range(first, row + 1)])
                        * 0.3
                    )
                    if softcap is not None:
                        logits = softcap * torch.tanh(logits / softcap)
                    if s_aux is not None:
                        logits = torch.cat([logits, s_aux[head][None]])
                    weights = logits.softmax(0)[: row + 1 - first]
                    if masked is not None and masked[stream, head]:
                        weights = torch.full_like(weights, 1 / len(weights) if mask == "uniform" else 0.0)
                    out[stream, row, head] = weights @ value[stream, shared, first : row + 1]
    return out


@given(n=st.integers(1, 9), window=st.none() | st.integers(1, 12))
def test_a_position_sees_itself_and_those_before_it_within_the_window(n: int, window: int | None) -> None:
    found = visible_QK(torch.arange(n), torch.arange(n), window)
    for query in range(n):
        for key in range(n):
            assert found[query, key] == (key <= query and (window is None or query - key < window))


@settings(deadline=None, max_examples=250)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    window=st.none() | st.integers(1, 10),
    softcap=st.none() | st.just(1.5),
    sinks=st.booleans(),
    mask=st.sampled_from(["uniform", "zero"]),
    masked=st.none() | st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=2, max_size=2),
    block=st.sampled_from([2, 256]),
    seed=st.integers(0, 1000),
)
def test_packed_attention_equals_the_definition_row_by_row(
    lengths: list[int],
    window: int | None,
    softcap: float | None,
    sinks: bool,
    mask: str,
    masked: list[list[bool]] | None,
    block: int,
    seed: int,
) -> None:
    case, bounds = drawn(sum(lengths), seed=seed), bounds_of(lengths)
    kwargs: dict[str, Any] = {"sliding_window": window, "softcap": softcap}
    if sinks:
        kwargs["s_aux"] = torch.linspace(-1, 1, N_HEADS)
    masked_SH = None if masked is None else torch.tensor(masked)
    expected = slowly(case, bounds, masked=masked_SH, mask=mask, **kwargs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_QUERY_BLOCK", block)
        for kernel, varlen in [
            (document_by_document, None),
            (variable_length, varlen_by_definition),
            (variable_length_split, varlen_of_old),
        ]:
            patch.setattr(kernels, "varlen_attn", varlen)
            found = run(case, bounds, masked=masked_SH, mask=mask, kernel=kernel, **kwargs)
            torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("sinks", [None, torch.zeros(N_HEADS)])
@pytest.mark.parametrize("mask", ["uniform", "zero"])
def test_masking_a_query_head_leaves_the_heads_that_share_its_key_head_untouched(
    mask: str, sinks: torch.Tensor | None
) -> None:
    case = drawn(12)
    masked = torch.tensor([[False] * 4, [False, True, False, False]])
    kwargs = {} if sinks is None else {"s_aux": sinks}
    plain = run(case, [(0, 12)], masked=None, mask=mask, **kwargs)
    found = run(case, [(0, 12)], masked=masked, mask=mask, **kwargs)
    assert torch.equal(found[0], plain[0])
    assert torch.equal(found[1, :, [0, 2, 3]], plain[1, :, [0, 2, 3]])
    assert not torch.allclose(found[1, 1:, 1], plain[1, 1:, 1])


@pytest.mark.parametrize("kwargs", [{}, {"sliding_window": 5}, {"softcap": 1.5}, {"s_aux": torch.zeros(N_HEADS)}])
def test_documents_of_one_row_never_see_each_other(kwargs: dict[str, Any]) -> None:
    case = drawn(14)
    alone = run(tuple(x[:, :, 6:] for x in case), [(0, 8)], masked=None, mask="uniform", **kwargs)
    packed = run(case, [(0, 6), (6, 14)], masked=None, mask="uniform", **kwargs)
    torch.testing.assert_close(packed[:, 6:], alone)


def test_windows_longer_than_a_block_of_query_rows_are_attended_whole() -> None:
    case = drawn(600, n_streams=1)
    found = run(case, [(0, 600)], masked=None, mask="uniform", sliding_window=300)
    query, key, value = (x.repeat_interleave(N_HEADS // x.shape[1], dim=1) for x in case)
    visible = visible_QK(torch.arange(600), torch.arange(600), 300)
    weights = (query @ key.transpose(2, 3) * 0.3).masked_fill(~visible, -torch.inf).softmax(-1)
    torch.testing.assert_close(found, (weights @ value).transpose(1, 2), atol=2e-6, rtol=1e-5)


def test_the_recorder_sees_queries_before_any_is_masked() -> None:
    seen: list[tuple[int, torch.Tensor, torch.Tensor, Logits]] = []
    case = drawn(4, n_streams=1)
    module: Any = SimpleNamespace(layer_idx=2)
    masks = {2: torch.tensor([[True] * N_HEADS])}
    attention_pass = AttentionPass(there([(0, 4)]), masks, recorder=lambda *call: seen.append(call))
    with in_flight(attention_pass):
        packed_attention(module, *case, None, sliding_window=3)
    [(layer, query, key, logits)] = seen
    assert (layer, logits.window) == (2, 3)
    assert torch.equal(query, case[0])
    assert torch.equal(key, case[1])
    assert attention_pass.layers_seen == {2}


def test_packed_attention_runs_only_inside_a_pass() -> None:
    with pytest.raises(AssertionError, match="in_flight"):
        packed_attention(torch.nn.Identity(), *drawn(3), None)


def test_an_inner_pass_hides_the_outer_one_until_it_ends() -> None:
    outer, inner = AttentionPass(there([(0, 1)])), AttentionPass(there([(0, 2)]))
    with in_flight(outer):
        with in_flight(inner):
            assert attention.current_pass() is inner
        assert attention.current_pass() is outer
