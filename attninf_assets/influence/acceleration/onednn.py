"""Float32 matrix products of the CPU through oneDNN, from weights laid out for it once.

PyTorch hands them to MKL, whose code for processors of other makers is slower: on an AMD EPYC with AVX-512, oneDNN
multiplies 1.3 to 1.5 times as fast. Both are part of PyTorch for x86; where oneDNN is missing, nothing changes.
"""

from collections.abc import Sequence
from typing import Any

import torch

from attninf_assets.influence.acceleration.torch_internals import (
    has_onednn_operators,
    onednn_has_bfloat16,
    onednn_layout,
    onednn_linear,
)
from attninf_assets.influence.model.loss import Tile, tiles_of
from attninf_assets.influence.model.pretrained import LinearLayer, decoder_layers, linear_layers

_ROWS = 1024  # of activations that the layout of the weights is chosen for


class OneDnnLinear(torch.nn.Module):
    """A linear layer by oneDNN: x [..., K] -> x W^T + b [..., N], float32; only oneDNN can read its weights [N, K]."""

    def __init__(self, weight_NK: torch.Tensor, bias_N: torch.Tensor | None = None) -> None:
        super().__init__()
        laid_out = onednn_layout(weight_NK.detach().contiguous(), rows=_ROWS)
        self.weight = torch.nn.Parameter(laid_out, requires_grad=False)
        self.bias = None if bias_N is None else torch.nn.Parameter(bias_N.detach(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return onednn_linear(x, self.weight, self.bias)


class OneDnnTile(OneDnnLinear):
    """A tile of the vocabulary projection computed by oneDNN in float32, for hidden states of any type."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float())


def has_onednn(device: torch.device) -> bool:
    """Whether this installation of PyTorch can compute products on the device with oneDNN."""
    return device.type == "cpu" and has_onednn_operators()


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether oneDNN computes 16-bit products on the device; without it they are slow on a CPU."""
    return has_onednn(device) and onednn_has_bfloat16()


def to_onednn(model: Any) -> Sequence[LinearLayer]:
    """Replace the linear layers of the decoder's layers, in place; returns what was replaced, for `restore`."""
    replaced = linear_layers(decoder_layers(model))
    for found in replaced:
        found.put(OneDnnLinear(found.linear.weight, found.linear.bias))
    return replaced


def restore(replaced: Sequence[LinearLayer]) -> None:
    """Undo `to_onednn`."""
    for found in replaced:
        found.put(found.linear)


def onednn_tiles(model: Any) -> list[Tile]:
    """The vocabulary projection in tiles; of 16-bit models in float32, too."""
    return [OneDnnTile(weight.float(), None if bias is None else bias.float()) for weight, bias in tiles_of(model)]
