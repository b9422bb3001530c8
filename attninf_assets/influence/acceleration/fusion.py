"""Compilation of norms, feed-forward activations and float8 conversions into single kernels.

Between two matrix products a decoder does many small things to every number of the row, each a pass over the device's
memory. torch.compile makes one pass of them. Only small modules with no control flow are compiled, so that it works for
any architecture and takes seconds.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch

from attninf_assets.influence.acceleration.float8 import Float8Linear, Quantize, quantized
from attninf_assets.influence.acceleration.torch_internals import forget_compiled

# What the classes' names end with, in every architecture of transformers.
_FUSED = ("RMSNorm", "MLP")


def fuse(model: Any) -> int:
    """Compile the model's norms, feed-forward blocks and float8 conversions, on first use; returns their number."""
    modules = list(_modules(model))
    for module in modules:
        module.compile(dynamic=True)
    quantizing = [module for module in model.modules() if isinstance(module, Float8Linear)]
    for module in quantizing:
        module.quantize = _fused_quantized()
    return len(modules) + len(quantizing)


def unfuse(model: Any) -> None:
    """Undo `fuse`: the same modules run uncompiled."""
    for module in _modules(model):
        forget_compiled(module)
    for module in model.modules():
        if isinstance(module, Float8Linear):
            module.quantize = quantized


@cache
def fused_log_sum_exp() -> Callable[[torch.Tensor], torch.Tensor]:
    """A function for log(sum(exp(logits))) over the last dimension as one kernel, compiled on its first use."""
    return torch.compile(lambda logits: logits.logsumexp(dim=-1), dynamic=True)


@cache
def _fused_quantized() -> Quantize:
    """`quantized` for all layers alike: as parts of their modules, each shape of weights would be compiled anew."""
    return torch.compile(quantized, dynamic=True)


def _modules(model: Any) -> Iterator[torch.nn.Module]:
    return (module for module in model.modules() if type(module).__name__.endswith(_FUSED))
