"""A model made to be of a 16-bit class: matrices in bfloat16, all else in float32.

Beside a model that is bfloat16 throughout it takes, for V entries of vocabulary and hidden size C, 2 V C bytes more for
the float32 embedding and, where that is also the projection, 2 V C for the projection's own copy; loaded, it passes
through float32 on the host. Per token and layer of a Llama with hidden size C and feed-forward size F it moves, unless
compiled, about 60 C + 14 F bytes more through the device's memory, as every product's result has 4 bytes and is
rounded to 2 before the next; and the residual stream of a pass takes 4 C instead of 2 C bytes a token.
"""

from functools import partial
from typing import Any

import torch

from attninf_assets.influence.model.layers import linear_layers
from attninf_assets.influence.model.sixteen_bit import SixteenBitLinear, SixteenBitProducts


def to_sixteen_bit(model: Any) -> Any:
    """Make the float32 `model` one whose products are 16-bit, in place; returns it.

    Linear layers, the vocabulary projection too, are replaced. Other modules that hold stacks of matrices (fused
    experts) keep those in bfloat16 and multiply as `SixteenBitProducts` says. Every other parameter stays float32:
    embeddings, norms, biases, and routers that are no linear layers.
    """
    for found in linear_layers(model):
        found.put(SixteenBitLinear(found.weight_NK, found.bias_N))
    for module in model.modules():
        stacks = [parameter for parameter in module.parameters(recurse=False) if parameter.ndim == 3]
        for stack in stacks:
            stack.data = stack.data.to(torch.bfloat16)
        if stacks:
            module.forward = partial(_in_sixteen_bits, module.forward)
    return model


def product_type(model: Any) -> torch.dtype:
    """The type of the model's matrices: float32, or bfloat16 in the 16-bit classes."""
    dtype: torch.dtype = model.get_output_embeddings().weight.dtype
    return dtype


def _in_sixteen_bits(forward: Any, *args: Any, **kwargs: Any) -> Any:
    with SixteenBitProducts():
        return forward(*args, **kwargs)
