"""Products of the 16-bit classes: operands rounded to bfloat16, sums and results in float32.

Rounding the residual stream to the 8 bits of bfloat16 after every layer is what costs a selection documents; rounding
what enters a matrix product costs next to nothing. So only the operands of products are rounded, weights once and
activations as they enter; residual stream, norms, positions, activations and logits are float32. On CUDA the matrix
units multiply 16 bits and add in float32. Elsewhere the rounded numbers are multiplied as float32, in which a product
of two is exact: results are the same to within the order of summation. Shapes: M tokens, K inputs, N outputs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


def operand(x: torch.Tensor) -> torch.Tensor:
    """`x` rounded to bfloat16, in the type to multiply it in: bfloat16 on CUDA, float32 elsewhere."""
    rounded = x.to(torch.bfloat16)
    return rounded if x.is_cuda else rounded.float()


def linear_product(x: torch.Tensor, weight_NK: torch.Tensor, bias_N: torch.Tensor | None) -> torch.Tensor:
    """The linear layer x [..., K] -> x W^T + b [..., N] in float32; `x` is rounded where the weights are 16-bit."""
    if weight_NK.dtype == torch.float32:
        return F.linear(x, weight_NK, bias_N)
    if not x.is_cuda:
        return F.linear(operand(x), weight_NK.float(), bias_N)
    out = torch.mm(operand(x).flatten(0, -2), weight_NK.T, out_dtype=torch.float32).unflatten(0, x.shape[:-1])
    return out if bias_N is None else out + bias_N


def matrix_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The product a [..., M, K] @ b [..., K, N] in float32, both rounded to bfloat16; leading dimensions broadcast."""
    a, b = operand(a), operand(b)
    if not a.is_cuda:
        return a @ b
    if a.ndim == b.ndim == 2:
        return torch.mm(a, b, out_dtype=torch.float32)
    leading = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (x.expand(*leading, *x.shape[-2:]).flatten(0, -3) for x in (a, b))
    return torch.bmm(a, b, out_dtype=torch.float32).unflatten(0, leading)


class SixteenBitLinear(torch.nn.Module):
    """A linear layer on 16-bit weights [N, K] and rounded inputs, float32 out."""

    def __init__(self, weight_NK: torch.Tensor, bias_N: torch.Tensor | None = None) -> None:
        super().__init__()
        rounded = weight_NK.detach().to(torch.bfloat16).contiguous()
        self.weight = torch.nn.Parameter(rounded, requires_grad=False)
        self.bias = None if bias_N is None else torch.nn.Parameter(bias_N.detach().float(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear_product(x, self.weight, self.bias)


class SixteenBitProducts(TorchFunctionMode):
    """While open, products with a bfloat16 operand are those of the 16-bit classes, float32 out.

    For modules that multiply by parameters of their own, as fused experts do.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        ours = _PRODUCTS.get(getattr(func, "__name__", ""))
        if ours is None or all(x.dtype == torch.float32 for x in args[:2]):
            return func(*args, **(kwargs or {}))
        return ours(*args, **(kwargs or {}))


def _linear(x: torch.Tensor, weight_NK: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return linear_product(x, weight_NK, bias)


def _grouped(a: torch.Tensor, b: torch.Tensor, **how: Any) -> torch.Tensor:
    """Rows of `a` by one matrix of `b` for each group. CUDA's kernel rounds its results to bfloat16."""
    return F.grouped_mm(operand(a), operand(b), **how).float()


# By name: `@`, methods and functions arrive as different objects, and F.grouped_mm as what it calls.
_PRODUCTS: Mapping[str, Callable[..., torch.Tensor]] = {
    "linear": _linear,
    "_grouped_mm": _grouped,
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm"), matrix_product),
}
