"""Masked-head attention over documents packed back to back in one row, for transformers' attention interface.

Nothing is padded and no mask is built by transformers: this module and its kernels own causality, document borders,
sliding windows, logit softcaps, attention sinks and the masked heads. Shapes: S streams, H query heads, K key/value
heads, T tokens of the row, D head dimension.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface

from attninf_assets.influence.model.head import Mask
from attninf_assets.influence.model.kernels import Documents, Kernel, Logits, document_by_document, per_query_head
from attninf_assets.influence.model.masking import running_mean_of_values
from attninf_assets.influence.model.sixteen_bit import operand

NAME = "attninf_packed"

Recorder = Callable[[int, torch.Tensor, torch.Tensor, Logits], None]


@dataclass
class AttentionPass:
    """The state of one forward pass that the attention function needs: documents, masked heads, kernel, recorder."""

    documents: Documents
    head_masks: Mapping[int, torch.Tensor] = field(default_factory=dict)  # layer -> bool [S, H]
    mask: Mask = "uniform"
    kernel: Kernel = document_by_document
    recorder: Recorder | None = None  # called with (layer, query [S,H,T,D], key [S,K,T,D], logits)
    rounding: bool = False  # whether queries, keys and values are rounded to bfloat16, as operands of products
    layers_seen: set[int] = field(default_factory=set)  # layers whose attention came through here


_IN_FLIGHT: ContextVar[AttentionPass | None] = ContextVar("attention_pass", default=None)


@contextmanager
def in_flight(attention_pass: AttentionPass) -> Iterator[AttentionPass]:
    """A block in which forward passes see `attention_pass` as the current one."""
    token = _IN_FLIGHT.set(attention_pass)
    try:
        yield attention_pass
    finally:
        _IN_FLIGHT.reset(token)


def current_pass() -> AttentionPass:
    """The current pass: the one opened by the innermost `in_flight()`."""
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
    logits = Logits(scale, sliding_window, softcap, s_aux)
    if attention_pass.recorder is not None:
        attention_pass.recorder(layer, query, key, logits)
    if attention_pass.rounding:
        query, key, value = operand(query), operand(key), operand(value)
    masked_SH = attention_pass.head_masks.get(layer)
    masked_SH11 = None if masked_SH is None else masked_SH[:, :, None, None]
    uniform_SH11 = masked_SH11 if attention_pass.mask == "uniform" else None
    if uniform_SH11 is not None and s_aux is None:
        query = query.masked_fill(uniform_SH11, 0)
    out_SHTD = attention_pass.kernel(query, key, value, attention_pass.documents, logits)
    if uniform_SH11 is not None and s_aux is not None:
        for start, end in attention_pass.documents.bounds:
            mean = running_mean_of_values(value[:, :, start:end], window=sliding_window)
            own = out_SHTD[:, :, start:end]
            own.copy_(torch.where(uniform_SH11, per_query_head(mean, query.shape[1]), own))
    if masked_SH11 is not None and attention_pass.mask == "zero":
        out_SHTD = out_SHTD.masked_fill(masked_SH11, 0)
    return out_SHTD.transpose(1, 2), None


AttentionInterface.register(NAME, packed_attention)
