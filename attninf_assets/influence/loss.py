"""Next-token cross-entropy from hidden states, without ever holding the logits of a batch.

Shapes: R rows (predicted tokens), V vocabulary, C hidden size.
"""

from typing import Any

import torch
import torch.nn.functional as F

_ROWS = 1024  # rows of hidden states projected at once
_TILE = 4096  # vocabulary entries projected at once: float32 logits of 16 MiB a tile


def token_losses_R(hidden_RC: torch.Tensor, targets_R: torch.Tensor, model: Any) -> torch.Tensor:
    """Cross-entropy in nats of each target token, float32 [R].

    The log-sum-exp over the vocabulary is accumulated tile by tile, so memory is rows × tile whatever the vocabulary.
    """
    head = model.get_output_embeddings()
    weight_VC, bias_V = head.weight, getattr(head, "bias", None)
    losses = []
    for first in range(0, len(targets_R), _ROWS):
        hidden, targets = hidden_RC[first : first + _ROWS], targets_R[first : first + _ROWS]
        partial = []
        for tile in range(0, weight_VC.shape[0], _TILE):
            bias = None if bias_V is None else bias_V[tile : tile + _TILE]
            logits = F.linear(hidden, weight_VC[tile : tile + _TILE], bias).float()
            partial.append(final_logits(logits, model.config).logsumexp(dim=-1))
        target_logits = (hidden.float() * weight_VC[targets].float()).sum(-1)
        if bias_V is not None:
            target_logits = target_logits + bias_V[targets].float()
        losses.append(torch.stack(partial).logsumexp(dim=0) - final_logits(target_logits, model.config))
    return torch.cat(losses) if losses else hidden_RC.new_zeros(0, dtype=torch.float32)


def predicted_R(hidden_RC: torch.Tensor, model: Any) -> torch.Tensor:
    """The token with the highest logit for each row, int64 [R]; meant for few rows."""
    return model.get_output_embeddings()(hidden_RC).argmax(dim=-1)


def final_logits(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """What some architectures do to the projected logits: Granite divides, Cohere multiplies, Gemma caps softly."""
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (factor := getattr(config, "logit_scale", None)) is not None:
        logits = logits * factor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = cap * torch.tanh(logits / cap)
    return logits
