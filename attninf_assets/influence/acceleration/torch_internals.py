"""Every private name of torch that this project calls, and for what; checked against 2.13.0.

A minor version may rename or change any of it: the dependency ends below the next one, and a test compares the
behaviour relied on, and the version, with what is written here. oneDNN's operators are those that torch.compile calls
for frozen weights; a build of torch without them has none of the three. Shapes: M tokens, K inputs, N outputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

CHECKED_AGAINST = "2.13.0"


def has_onednn_operators() -> bool:
    """Whether this build of torch has oneDNN's operators on weights that are laid out for them."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_layout(weight_NK: torch.Tensor, *, rows: int) -> torch.Tensor:
    """Float32 weights laid out for products with about `rows` rows; only `onednn_linear` can read them."""
    return torch.ops.mkldnn._reorder_linear_weight(weight_NK, rows)


def onednn_linear(x: torch.Tensor, laid_out: torch.Tensor, bias_N: torch.Tensor | None) -> torch.Tensor:
    """The linear layer x [..., K] -> x W^T + b [..., N], in float32, by `onednn_layout` of W."""
    return torch.ops.mkldnn._linear_pointwise(x, laid_out, bias_N, "none", [], "")


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has instructions that multiply 16-bit numbers: AVX512-BF16, or AMX's tiles."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextmanager
def onednn_in_bfloat16() -> Iterator[None]:
    """A block in which oneDNN may round float32 operands to bfloat16, and multiply those; it adds in float32."""
    settings: Any = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


def scaled_product(
    a_MK: torch.Tensor,
    b_KN: torch.Tensor,
    *,
    scale_M1: torch.Tensor,
    scale_1N: torch.Tensor,
    out_type: torch.dtype,
) -> torch.Tensor:
    """The product (scale_M1 a) (scale_1N b) [M, N] of two float8 matrices, in `out_type`.

    `b` lies column by column in memory.
    """
    return torch._scaled_mm(a_MK, b_KN, scale_a=scale_M1, scale_b=scale_1N, out_dtype=out_type)


def forget_compiled(module: Any) -> None:
    """Undo `module.compile()`: from now on the module is called as it was written."""
    module._compiled_call_impl = None
