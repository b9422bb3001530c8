"""Attention over documents packed back to back in one row, as a function for transformers' attention interface.

Nothing is padded and no mask is built by transformers: this module owns causality, document borders, sliding windows,
logit softcaps, attention sinks and the masked heads. Shapes: S streams, H query heads, K key/value heads, T tokens of
the row, L tokens of one document, D head dimension.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from attninf_assets.influence.masking import Mask, running_mean_of_values

NAME = "attninf_packed"
_QUERY_BLOCK = 256  # rows of explicit logits held at once where the usual kernel cannot be used

Recorder = Callable[[int, torch.Tensor, torch.Tensor, int | None], None]


@dataclass
class AttentionPass:
    """What the attention function has to know about the forward pass in flight."""

    documents: Sequence[tuple[int, int]]  # [start, end) of each document in the row
    head_masks: Mapping[int, torch.Tensor] = field(default_factory=dict)  # layer -> bool [S, H]
    mask: Mask = "uniform"
    recorder: Recorder | None = None  # called with (layer, query [S,H,T,D], key [S,K,T,D], window)
    layers_seen: set[int] = field(default_factory=set)


_IN_FLIGHT: ContextVar[AttentionPass | None] = ContextVar("attention_pass", default=None)


@contextmanager
def in_flight(attention_pass: AttentionPass) -> Iterator[AttentionPass]:
    """Make `attention_pass` the one that forward passes inside the block see."""
    token = _IN_FLIGHT.set(attention_pass)
    try:
        yield attention_pass
    finally:
        _IN_FLIGHT.reset(token)


def current_pass() -> AttentionPass:
    """The pass opened by the innermost `in_flight()`."""
    attention_pass = _IN_FLIGHT.get()
    assert attention_pass is not None, "packed attention runs only inside in_flight()"
    return attention_pass


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function for `transformers.AttentionInterface`: [S,H,T,D] queries in, [S,T,H,D] outputs out.

    Where a head's logits are q·k alone (windowed and softcapped ones too), zero queries make its attention uniform in
    any kernel. Attention sinks (`s_aux`) add a logit that is no q·k: there the running mean of the values replaces the
    output.
    """
    attention_pass = current_pass()
    layer: int = module.layer_idx
    attention_pass.layers_seen.add(layer)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if attention_pass.recorder is not None:
        attention_pass.recorder(layer, query, key, sliding_window)
    masked_SH = attention_pass.head_masks.get(layer)
    masked_SH11 = None if masked_SH is None else masked_SH[:, :, None, None]
    uniform_SH11 = masked_SH11 if attention_pass.mask == "uniform" else None
    if uniform_SH11 is not None and s_aux is None:
        query = query.masked_fill(uniform_SH11, 0)

    out_SHTD = query.new_empty(*query.shape[:3], value.shape[-1])
    for start, end in attention_pass.documents:
        k, v = key[:, :, start:end], value[:, :, start:end]
        out = _attend(query[:, :, start:end], k, v, scale, sliding_window, softcap, s_aux)
        if uniform_SH11 is not None and s_aux is not None:
            mean = _per_query_head(running_mean_of_values(v, window=sliding_window), query.shape[1])
            out = torch.where(uniform_SH11, mean, out)
        out_SHTD[:, :, start:end] = out
    if masked_SH11 is not None and attention_pass.mask == "zero":
        out_SHTD = out_SHTD.masked_fill(masked_SH11, 0)
    return out_SHTD.transpose(1, 2), None


def _attend(
    q_SHLD: torch.Tensor,
    k_SKLD: torch.Tensor,
    v_SKLD: torch.Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks_H: torch.Tensor | None,
) -> torch.Tensor:
    """Causal attention inside one document; the fused kernel wherever it can express the logits."""
    length = q_SHLD.shape[2]
    if window is not None and window >= length:
        window = None
    if window is None and softcap is None and sinks_H is None:
        grouped = q_SHLD.shape[1] != k_SKLD.shape[1]
        return F.scaled_dot_product_attention(q_SHLD, k_SKLD, v_SKLD, is_causal=True, scale=scale, enable_gqa=grouped)
    k_SHLD, v_SHLD = (_per_query_head(x, q_SHLD.shape[1]) for x in (k_SKLD, v_SKLD))
    blocks = []
    for row in range(0, length, _QUERY_BLOCK):
        end = min(row + _QUERY_BLOCK, length)
        first = 0 if window is None else max(0, row - window + 1)
        logits = (q_SHLD[:, :, row:end] @ k_SHLD[:, :, first:end].transpose(2, 3)).float() * scale
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        visible = visible_QK(torch.arange(row, end), torch.arange(first, end), window).to(logits.device)
        logits = logits.masked_fill(~visible, -torch.inf)
        if sinks_H is not None:
            sink = sinks_H.float().reshape(1, -1, 1, 1).expand(*logits.shape[:3], 1)
            logits = torch.cat([logits, sink], dim=-1)
        weights = logits.softmax(dim=-1)[..., : end - first].to(v_SHLD.dtype)
        blocks.append(weights @ v_SHLD[:, :, first:end])
    return torch.cat(blocks, dim=2)


def visible_QK(queries_Q: torch.Tensor, keys_K: torch.Tensor, window: int | None) -> torch.Tensor:
    """Boolean [Q, K]: which key positions each query position of the same document may attend to."""
    distance = queries_Q[:, None] - keys_K[None, :]
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)


def _per_query_head(x_SKLD: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Key/value heads repeated so that there is one per query head."""
    return x_SKLD.repeat_interleave(n_heads // x_SKLD.shape[1], dim=1)


AttentionInterface.register(NAME, packed_attention)
