"""Next-token cross-entropy from hidden states, without ever holding the logits of a batch.

Shapes: R rows (predicted tokens), V vocabulary, C hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from attninf_assets.influence.model.mixed_precision import product_type
from attninf_assets.influence.model.sixteen_bit import linear_product, operand

_ROWS = 1024  # rows of hidden states projected at once
_TILE = 4096  # vocabulary entries projected at once: float32 logits of 16 MiB a tile, which a device's caches can hold


LogSumExp = Callable[[torch.Tensor], torch.Tensor]  # float32 [R, V] -> [R]; may use its argument up
Tile = Callable[[torch.Tensor], torch.Tensor]  # hidden states [R, C] -> float32 logits of some vocabulary entries


def log_sum_exp_in_place(logits_RV: torch.Tensor) -> torch.Tensor:
    """log(sum(exp(logits))) of each row, computed in the memory of the logits."""
    largest_R = logits_RV.amax(dim=-1)
    return logits_RV.sub_(largest_R[:, None]).exp_().sum(dim=-1).log_().add_(largest_R)


def token_losses_R(
    hidden_RC: torch.Tensor,
    targets_R: torch.Tensor,
    model: Any,
    *,
    log_sum_exp: LogSumExp = log_sum_exp_in_place,
    tiles: Sequence[Tile] | None = None,
) -> torch.Tensor:
    """Cross-entropy in nats of each target token, float32 [R].

    The log-sum-exp over the vocabulary is accumulated tile by tile, so memory is rows × tile whatever the vocabulary.
    `tiles` are the model's vocabulary projection in another way to compute it, in the order of the vocabulary.
    """
    if tiles is None:
        tiles = [partial(linear_product, weight_NK=weight, bias_N=bias) for weight, bias in tiles_of(model)]
    losses = []
    for first in range(0, len(targets_R), _ROWS):
        hidden, targets = hidden_RC[first : first + _ROWS], targets_R[first : first + _ROWS]
        if product_type(model) != torch.float32:
            hidden = operand(hidden)  # once for all tiles
        sums, target_logits = [], hidden.new_zeros(len(hidden), dtype=torch.float32)
        start = 0
        for tile in tiles:
            logits = final_logits(tile(hidden), model.config)
            # The target's logit is the very number that enters the sum: rounded alike, they cancel for a sure token.
            place = (targets - start).clamp(0, logits.shape[-1] - 1)
            here = (targets >= start) & (targets < start + logits.shape[-1])
            start += logits.shape[-1]
            target_logits = torch.where(here, logits.gather(-1, place[:, None])[:, 0], target_logits)
            sums.append(log_sum_exp(logits))
        losses.append((torch.stack(sums).logsumexp(dim=0) - target_logits).clamp(min=0))
    return torch.cat(losses) if losses else hidden_RC.new_zeros(0, dtype=torch.float32)


def tiles_of(model: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """(weight [tile, C], bias [tile] or None) of the vocabulary projection, tile by tile; views."""
    head = model.get_output_embeddings()
    weight_VC, bias_V = head.weight, getattr(head, "bias", None)
    for start in range(0, len(weight_VC), _TILE):
        yield weight_VC[start : start + _TILE], None if bias_V is None else bias_V[start : start + _TILE]


def predicted_R(hidden_RC: torch.Tensor, model: Any) -> torch.Tensor:
    """The token with the highest logit for each row, int64 [R]; meant for few rows."""
    return model.get_output_embeddings()(hidden_RC).argmax(dim=-1)


def final_logits(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """The logits after what some architectures do to them: Granite divides, Cohere multiplies, Gemma caps softly."""
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (factor := getattr(config, "logit_scale", None)) is not None:
        logits = logits * factor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits
