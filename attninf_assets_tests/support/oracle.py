"""The method's definitions, slow and obvious: what the scoring engine must agree with.

Eager attention with written-out [T, T] weights, float32, one window at a time, plain loops. Nothing here comes from
`attninf_assets`: transformers builds the visibility masks, so causality and sliding windows are its own notion of them.
A head is a plain (layer, index) pair.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.pytorch_utils import Conv1D

NAME = "slow_and_obvious"
Masked = frozenset[tuple[int, int]]
NOBODY: Masked = frozenset()


@dataclass
class _Running:
    masked: Masked = NOBODY
    mask: str = "uniform"
    weights: dict[int, torch.Tensor] = field(default_factory=dict)  # layer -> [H, T, T] before any masking
    rounding: bool = False  # queries, keys and values to bfloat16


_running = _Running()


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    _, n_heads, length, dimension = query.shape
    if _running.rounding:
        query, key, value = _rounded(query), _rounded(key), _rounded(value)
    visible = attention_mask[0, 0, :length, :length] == 0
    scaling = dimension**-0.5 if scaling is None else scaling
    layer: int = module.layer_idx
    rows, outputs = [], []
    for head in range(n_heads):
        shared = head // (n_heads // key.shape[1])  # the key/value head this query head reads
        logits = query[0, head].float() @ key[0, shared].float().T * scaling
        if softcap is not None:
            logits = torch.tanh(logits / softcap) * softcap
        logits = logits.masked_fill(~visible, -torch.inf)
        if s_aux is not None:
            logits = torch.cat([logits, s_aux[head].float().expand(length, 1)], dim=1)
        weights = torch.softmax(logits, dim=1)[:, :length]
        rows.append(weights)
        if (layer, head) in _running.masked:
            if _running.mask == "uniform":
                weights = visible.float() / visible.sum(dim=1, keepdim=True)
            elif _running.mask == "zero":
                weights = torch.zeros_like(weights)
        outputs.append(weights @ value[0, shared].float())
    _running.weights[layer] = torch.stack(rows)
    return torch.stack(outputs, dim=1)[None].to(query.dtype), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, eager_mask)


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """The nearest bfloat16 numbers, held in float32."""
    return x.bfloat16().float()


def with_rounded_operands(model: Any) -> Any:
    """A copy of the float32 model in which whatever enters a matrix product is rounded to bfloat16, and nothing else.

    Attention is told by the copy's mark, experts by what they are given and what their gates put out.
    """
    rounded = copy.deepcopy(model)
    head = rounded.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())  # no longer the embedding's, which is not rounded
    for module in rounded.modules():
        is_layer = isinstance(module, torch.nn.Linear | Conv1D)
        for name, parameter in module.named_parameters(recurse=False):
            if (is_layer and name == "weight") or parameter.ndim == 3:
                parameter.data = _rounded(parameter.data)
        if is_layer or hasattr(module, "_apply_gate"):
            module.register_forward_pre_hook(lambda _, args: (_rounded(args[0]), *args[1:]))
        if hasattr(module, "_apply_gate"):
            module._apply_gate = lambda out, own=module._apply_gate: _rounded(own(out))
    rounded.rounds_attention = True
    return rounded


@contextmanager
def _attending_slowly(model: Any, masked: Masked, mask: str) -> Iterator[_Running]:
    global _running  # noqa: PLW0603
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    _running = _Running(masked, mask, rounding=getattr(model, "rounds_attention", False))
    try:
        yield _running
    finally:
        model.set_attn_implementation(before)


@torch.inference_mode()
def window_losses(
    model: Any, window: Sequence[int], *, start_token: int, masked: Masked = NOBODY, mask: str = "uniform"
) -> list[float]:
    """Next-token cross-entropy in nats of every token of the window behind its start token."""
    ids = [start_token, *window]
    with _attending_slowly(model, masked, mask):
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0].float()
    losses = []
    for position in range(1, len(ids)):
        log_probabilities = torch.log_softmax(logits[position - 1], dim=0)
        losses.append(-float(log_probabilities[ids[position]]))
    return losses


def document_losses(
    model: Any,
    token_ids: Sequence[int],
    *,
    start_token: int,
    max_tokens: int,
    masked: Masked = NOBODY,
    mask: str = "uniform",
) -> list[float]:
    """Losses of every token of the document, cut into consecutive windows, each with its own start token."""
    losses = []
    position = 0
    while position < len(token_ids):
        window = token_ids[position : position + max_tokens]
        losses += window_losses(model, window, start_token=start_token, masked=masked, mask=mask)
        position += max_tokens
    return losses


def mean(losses: Sequence[float]) -> float:
    """The document's loss: summed over its tokens before dividing."""
    return sum(losses) / len(losses)


def score(loss_base: float, loss_reference: float) -> float | None:
    """The attention influence score; null where there is no loss to speak of."""
    if loss_base < 1e-4:
        return None
    return (loss_reference - loss_base) / loss_base


@torch.inference_mode()
def attention_weights(model: Any, token_ids: Sequence[int]) -> dict[int, torch.Tensor]:
    """Layer -> [H, T, T] attention weights of the base model over one row."""
    with _attending_slowly(model, NOBODY, "uniform") as running:
        model(input_ids=torch.tensor([list(token_ids)], device=model.device), use_cache=False)
    return running.weights


def retrieval_scores(
    model: Any, token_ids: Sequence[int], *, answer_start: int, answer_end: int, span_start: int
) -> list[list[float]]:
    """[layer][head] share of the answer's tokens that the head copies, on one probe."""
    weights = attention_weights(model, token_ids)
    span = range(span_start, span_start + answer_end - answer_start)
    scores = []
    for layer in sorted(weights):
        of_layer = []
        for head_weights in weights[layer]:
            copied = 0
            for answer_position in range(answer_start, answer_end):
                producing = answer_position - 1  # the row whose *next* token is the answer token
                attended = int(head_weights[producing, : producing + 1].argmax())
                if attended in span and token_ids[attended] == token_ids[answer_position]:
                    copied += 1
            of_layer.append(copied / (answer_end - answer_start))
        scores.append(of_layer)
    return scores


@torch.inference_mode()
def retrieves(model: Any, token_ids: Sequence[int], *, answer_start: int, answer_end: int) -> bool:
    """Whether at least half of the answer's tokens are the model's argmax prediction under teacher forcing."""
    with _attending_slowly(model, NOBODY, "uniform"):
        logits = model(input_ids=torch.tensor([list(token_ids)], device=model.device), use_cache=False).logits[0]
    right = 0
    for position in range(answer_start, answer_end):
        right += int(logits[position - 1].argmax()) == token_ids[position]
    return 2 * right >= answer_end - answer_start
