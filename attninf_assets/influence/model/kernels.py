"""Kernels for causal attention over documents packed back to back, and the choice among them by device.

Every kernel computes the same: each document attends to itself alone, causally, within its layer's window, with softcap
and attention sinks where the architecture has them. Shapes: S streams, H query heads, K key/value heads, T tokens of
the row, L tokens of one document, D head dimension, N documents, X = S x T.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import AuxRequest, varlen_attn

from attninf_assets.influence.model.sixteen_bit import matrix_product

_QUERY_BLOCK = 256  # rows of explicit logits held at once where no fused kernel can express them


@dataclass(frozen=True)
class Documents:
    """The borders of the documents of a packed row, on the host and on the device."""

    bounds: Sequence[tuple[int, int]]  # [start, end), without gaps
    offsets: torch.Tensor  # int32 [N + 1] on the device: the starts, and the end of the row

    @classmethod
    def on(cls, device: torch.device, bounds: Sequence[tuple[int, int]]) -> "Documents":
        """The documents with their offsets on `device`; the copy does not wait for the device."""
        offsets = torch.tensor([start for start, _ in bounds] + [bounds[-1][1]], dtype=torch.int32)
        return cls(bounds, to_device(offsets, device))

    @property
    def longest(self) -> int:
        """The number of tokens of the longest document."""
        return max(end - start for start, end in self.bounds)


@dataclass(frozen=True)
class Logits:
    """The parameters of a layer's attention logits q·k: scale, window, soft cap, and the sinks beside them."""

    scale: float
    window: int | None = None  # positions a query reaches back to, its own included
    softcap: float | None = None
    sinks_H: torch.Tensor | None = None  # one logit more for each head, whose value is zero


Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Documents, Logits], torch.Tensor]


def document_by_document(
    q_SHTD: torch.Tensor, k_SKTD: torch.Tensor, v_SKTD: torch.Tensor, documents: Documents, logits: Logits
) -> torch.Tensor:
    """Packed attention by one kernel call for each document, on any device; [S, H, T, D] out."""
    out_SHTD = q_SHTD.new_empty(*q_SHTD.shape[:3], v_SKTD.shape[-1])
    for start, end in documents.bounds:
        q, k, v = q_SHTD[:, :, start:end], k_SKTD[:, :, start:end], v_SKTD[:, :, start:end]
        out_SHTD[:, :, start:end] = _attend(q, k, v, logits)
    return out_SHTD


def variable_length(
    q_SHTD: torch.Tensor, k_SKTD: torch.Tensor, v_SKTD: torch.Tensor, documents: Documents, logits: Logits
) -> torch.Tensor:
    """`variable_length_split` with each document's sums in a fixed order, where the device's kernel offers that."""
    return variable_length_split(q_SHTD, k_SKTD, v_SKTD, documents, logits, num_splits=1)


def variable_length_split(
    q_SHTD: torch.Tensor,
    k_SKTD: torch.Tensor,
    v_SKTD: torch.Tensor,
    documents: Documents,
    logits: Logits,
    **options: int,
) -> torch.Tensor:
    """All documents and streams in one call of the variable-length flash kernel (CUDA, 16-bit); [S, H, T, D] out.

    It takes no softcap: such layers go document by document. Attention sinks are a logit whose value is zero, so they
    shrink a head's output by the share of the weight that they draw: sigmoid(log-sum-exp - sink).
    """
    if logits.softcap is not None:
        return document_by_document(q_SHTD, k_SKTD, v_SKTD, documents, logits)
    n_streams, n_heads, n_tokens, _ = q_SHTD.shape
    starts = torch.arange(n_streams, device=q_SHTD.device, dtype=torch.int32)[:, None] * n_tokens
    ends = documents.offsets.new_full((1,), n_streams * n_tokens)
    offsets = torch.cat([(documents.offsets[None, :-1] + starts).flatten(), ends])
    newer: dict[str, Any] = dict(options)
    if "enable_gqa" in _parameters(varlen_attn):
        newer["enable_gqa"] = n_heads != k_SKTD.shape[1]
    else:
        k_SKTD, v_SKTD = per_query_head(k_SKTD, n_heads), per_query_head(v_SKTD, n_heads)
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_SHTD, k_SKTD, v_SKTD))
    out, lse_HX = varlen_attn(
        q,
        k,
        v,
        offsets,
        offsets,
        documents.longest,
        documents.longest,
        scale=logits.scale,
        window_size=(-1 if logits.window is None else logits.window - 1, 0),
        return_aux=AuxRequest(lse=True),
        **newer,
    )
    if logits.sinks_H is not None:
        kept_HX = torch.sigmoid(lse_HX.float() - logits.sinks_H.float()[:, None])
        out = (out.float() * kept_HX.T[:, :, None]).to(out.dtype)
    return out.unflatten(0, (n_streams, n_tokens)).transpose(1, 2)


def kernels_for(device: torch.device, dtype: torch.dtype) -> list[Kernel]:
    """The attention kernels for a device and a type, fastest first; the last works everywhere."""
    fused = device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)
    return [variable_length, variable_length_split, document_by_document] if fused else [document_by_document]


def visible_QK(queries_Q: torch.Tensor, keys_K: torch.Tensor, window: int | None) -> torch.Tensor:
    """A boolean mask [Q, K]: which key positions each query position of the same document may attend to."""
    distance = queries_Q[:, None] - keys_K[None, :]
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)


def per_query_head(x_SKLD: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Key/value heads repeated so that there is one per query head."""
    return x_SKLD.repeat_interleave(n_heads // x_SKLD.shape[1], dim=1)


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The host tensor, copied to the device; a CUDA device is not waited for."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b in float32, never rounded to the 16 bits that `a` and `b` may be of."""
    return a @ b if a.dtype == torch.float32 else matrix_product(a, b)


@cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    """The parameters a function takes: torch's kernel learnt some of them after 2.11."""
    return frozenset(inspect.signature(function).parameters)


def _attend(q_SHLD: torch.Tensor, k_SKLD: torch.Tensor, v_SKLD: torch.Tensor, logits: Logits) -> torch.Tensor:
    """Causal attention inside one document; the fused kernel wherever it can express the logits."""
    length, n_heads = q_SHLD.shape[2], q_SHLD.shape[1]
    window = None if logits.window is None or logits.window >= length else logits.window
    if window is None and logits.softcap is None and logits.sinks_H is None:
        fused: dict[str, Any] = {"is_causal": True, "scale": logits.scale, "enable_gqa": n_heads != k_SKLD.shape[1]}
        return F.scaled_dot_product_attention(q_SHLD, k_SKLD, v_SKLD, **fused)
    k_SHLD, v_SHLD = (per_query_head(x, n_heads) for x in (k_SKLD, v_SKLD))
    blocks = []
    for row in range(0, length, _QUERY_BLOCK):
        end = min(row + _QUERY_BLOCK, length)
        first = 0 if window is None else max(0, row - window + 1)
        weights = attention_weights(q_SHLD[:, :, row:end], k_SHLD[:, :, first:end], logits)
        blocks.append(weights.to(v_SHLD.dtype) @ v_SHLD[:, :, first:end])
    return torch.cat(blocks, dim=2)


def attention_weights(q_SHQD: torch.Tensor, k_SHKD: torch.Tensor, logits: Logits) -> torch.Tensor:
    """The attention weights [S, H, Q, K] in float32 of the last Q of K consecutive positions of one document; hidden
    positions have 0. With attention sinks a row sums to less than 1."""
    weights = _products(q_SHQD, k_SHKD.transpose(2, 3)) * logits.scale
    if logits.softcap is not None:
        weights = logits.softcap * torch.tanh(weights / logits.softcap)
    n_keys = k_SHKD.shape[2]
    positions = torch.arange(n_keys, device=weights.device)
    hidden_QK = ~visible_QK(positions[n_keys - q_SHQD.shape[2] :], positions, logits.window)
    weights = weights.masked_fill(hidden_QK, -torch.inf)
    if logits.sinks_H is not None:
        sink = logits.sinks_H.float().reshape(1, -1, 1, 1).expand(*weights.shape[:3], 1)
        weights = torch.cat([weights, sink], dim=-1)
    return weights.softmax(dim=-1)[..., :n_keys]
