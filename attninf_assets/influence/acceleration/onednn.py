"""Matrix products of the CPU through oneDNN, from weights laid out for it once.

PyTorch hands float32 ones to MKL, whose code for processors of other makers is slower: on an AMD EPYC with AVX-512,
oneDNN multiplies 1.3 to 1.5 times as fast. Both are part of PyTorch for x86; where oneDNN is missing, nothing changes.
Products of the 16-bit classes are float32 ones of rounded numbers. On processors that multiply 16 bits oneDNN may use
that, which changes nothing but the order of summation.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from attninf_assets.influence.acceleration.torch_internals import (
    cpu_multiplies_bfloat16,
    has_onednn_operators,
    onednn_in_bfloat16,
    onednn_layout,
    onednn_linear,
)
from attninf_assets.influence.model.layers import LinearLayer, decoder_layers, linear_layers
from attninf_assets.influence.model.loss import Tile, tiles_of
from attninf_assets.influence.model.sixteen_bit import operand

_ROWS = 1024  # of activations that the layout of the weights is chosen for


class OneDnnLinear(torch.nn.Module):
    """A linear layer by oneDNN: x [..., K] -> x W^T + b [..., N], float32; only oneDNN can read its weights [N, K].

    Where the weights are 16-bit, `x` is rounded to as many.
    """

    def __init__(self, weight_NK: torch.Tensor, bias_N: torch.Tensor | None = None) -> None:
        super().__init__()
        self.rounding = weight_NK.dtype != torch.float32
        with self._precision():
            laid_out = onednn_layout(weight_NK.detach().float().contiguous(), rows=_ROWS)
        self.weight = torch.nn.Parameter(laid_out, requires_grad=False)
        self.bias = None if bias_N is None else torch.nn.Parameter(bias_N.detach(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self._precision():
            return onednn_linear(operand(x) if self.rounding else x, self.weight, self.bias)

    def _precision(self) -> AbstractContextManager[None]:
        return onednn_in_bfloat16() if self.rounding and cpu_multiplies_bfloat16() else nullcontext()


def has_onednn(device: torch.device) -> bool:
    """Whether this installation of PyTorch can compute products on the device with oneDNN."""
    return device.type == "cpu" and has_onednn_operators()


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether oneDNN computes 16-bit products on the device faster than float32 ones."""
    return has_onednn(device) and cpu_multiplies_bfloat16()


def to_onednn(model: Any) -> Sequence[LinearLayer]:
    """Replace the linear layers of the decoder's layers, in place; returns what was replaced, for `restore`."""
    replaced = linear_layers(decoder_layers(model))
    for found in replaced:
        found.put(OneDnnLinear(found.weight_NK, found.bias_N))
    return replaced


def restore(replaced: Sequence[LinearLayer]) -> None:
    """Undo `to_onednn`."""
    for found in replaced:
        found.put(found.linear)


def onednn_tiles(model: Any) -> list[Tile]:
    """The vocabulary projection in tiles."""
    return [OneDnnLinear(weight, bias) for weight, bias in tiles_of(model)]
