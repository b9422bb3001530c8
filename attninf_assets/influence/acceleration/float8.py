"""Matrix products in float8 (e4m3) on devices that have them: half the bytes, twice the arithmetic of bfloat16.

Weights are scaled per output, activations per token, so a document's loss still does not depend on its neighbours. All
else is as in the bfloat16 class: attention and the vocabulary projection multiply bfloat16, and everything between two
products is float32. Shapes: M tokens, K inputs, N outputs.
"""

from collections.abc import Callable
from typing import Any

import torch

from attninf_assets.influence.acceleration.torch_internals import scaled_product
from attninf_assets.influence.model.layers import linear_layers

_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_TILE = 16  # inputs and outputs of what the hardware multiplies are multiples of it
_CAPABILITY = (9, 0)


Quantize = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class Float8Linear(torch.nn.Module):
    """A linear layer whose product is computed in float8, float32 in and out; `quantize` may be compiled.

    The product itself comes out in bfloat16, all that the hardware offers with a scale for each row.
    """

    def __init__(self, weight_NK: torch.Tensor, bias_N: torch.Tensor | None = None) -> None:
        super().__init__()
        weight_NK, scale_N1 = quantized(weight_NK.detach())
        self.weight = torch.nn.Parameter(weight_NK, requires_grad=False)
        self.register_buffer("scale_1N", scale_N1.T.contiguous())
        self.bias = None if bias_N is None else torch.nn.Parameter(bias_N.detach().float(), requires_grad=False)
        self.quantize: Quantize = quantized

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x_MK, scale_M1 = self.quantize(x.flatten(0, -2))
        out_MN = scaled_product(
            x_MK,
            self.weight.T,
            scale_M1=scale_M1,
            scale_1N=self.scale_1N,
            out_type=torch.bfloat16,
        )
        out = out_MN.unflatten(0, x.shape[:-1]).float()
        return out if self.bias is None else out + self.bias


def quantized(x_MK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows rounded to float8, and the float32 scales [M, 1] that undo the scaling.

    Each row is scaled so that its largest value is float8's largest.
    """
    scale_M1 = x_MK.float().abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / _LARGEST
    return (x_MK.float() / scale_M1).to(torch.float8_e4m3fn), scale_M1


def to_float8(model: Any, layers: torch.nn.Module) -> None:
    """Replace the linear layers inside `layers`, decoder layers of `model`, by float8 ones, in place.

    Raises `ValueError` naming the device where it has no float8 products (CUDA before compute capability 9.0, MPS), and
    naming the architecture where there is no linear layer whose sizes are multiples of 16.
    """
    device = model.device
    if device.type == "mps" or (device.type == "cuda" and torch.cuda.get_device_capability(device) < _CAPABILITY):
        raise ValueError(f"numeric_class float8: device {device} has no float8 products (CUDA from capability 9.0 on)")
    suited = [found for found in linear_layers(layers) if not any(size % _TILE for size in found.weight_NK.shape)]
    if not suited:
        raise ValueError(f"numeric_class float8: architecture {model.config.model_type!r} has no linear layer for it")
    for found in suited:
        found.put(Float8Linear(found.weight_NK, found.bias_N))
