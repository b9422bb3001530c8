"""Useful FLOPs of scoring: the work that no correct implementation can leave out.

A multiply and an add are two FLOPs. Useful is each layer once for every row of it (`stream_tree`: streams are one row
up to the layer in which they first differ), the vocabulary projection once per row behind the last layer and predicted
token, and attention over the positions that are visible. Divided by time and the measured peak of the device's matrix
products, they say how well it is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attninf_assets.influence.model.head import HeadSet
from attninf_assets.influence.model.stream_tree import stream_tree


@dataclass(frozen=True)
class ModelFlops:
    """A decoder's work by part, in FLOPs."""

    layers: tuple[float, ...]  # matrix products of each layer, per token
    windows: tuple[int | None, ...]  # how many positions each layer's attention reaches back, own included
    pair: float  # attention of one query position to one key position, all heads of a layer
    head: float  # vocabulary projection, per predicted token

    def of(
        self, lengths: Sequence[int], streams: Sequence[HeadSet], *, n_predicted: int, share_trunk: bool = True
    ) -> float:
        """Useful FLOPs of a pass over windows of these lengths (start tokens included) under the streams."""
        tree = stream_tree(tuple(streams), n_layers=len(self.layers), share_trunk=share_trunk)
        n_tokens = sum(lengths)
        total = self.head * n_predicted * tree.n_rows[-1]
        for layer, window, n_rows in zip(self.layers, self.windows, tree.n_rows, strict=True):
            pairs = sum(_visible_pairs(length, window) for length in lengths)
            total += n_rows * (layer * n_tokens + self.pair * pairs)
        return total


def model_flops(model: Any, layers: Sequence[torch.nn.Module]) -> ModelFlops:
    """A model's FLOPs, counted from its parameters.

    Each token meets every weight matrix of a layer, of experts only the chosen."""
    config = model.config.get_text_config()
    n_heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    kinds = getattr(config, "layer_types", None) or ["sliding_attention"] * len(layers)
    window = getattr(config, "sliding_window", None)
    head = model.get_output_embeddings().weight
    return ModelFlops(
        layers=tuple(_matrix_flops(layer, config) for layer in layers),
        windows=tuple(window if kind == "sliding_attention" else None for kind in kinds),
        pair=4.0 * n_heads * size,
        head=2.0 * head.numel(),
    )


def _visible_pairs(length: int, window: int | None) -> float:
    """Query-key pairs of a causal window: every position sees itself and what lies before it, `window` at most."""
    if window is None or window >= length:
        return length * (length + 1) / 2
    return window * (window + 1) / 2 + (length - window) * window


def _matrix_flops(layer: torch.nn.Module, config: Any) -> float:
    total = 0.0
    for parameter in layer.parameters():
        if parameter.ndim == 2:
            total += 2.0 * parameter.numel()
        elif parameter.ndim == 3:  # experts, of which each token meets a few
            chosen = getattr(config, "num_experts_per_tok", None) or parameter.shape[0]
            total += 2.0 * parameter.numel() * chosen / parameter.shape[0]
    return total
