"""A model made to be of a 16-bit class: matrices in bfloat16, all else in float32.

What it costs beside a model that is bfloat16 throughout, counted, not measured. Memory: for V entries of vocabulary and
hidden size C, 2 V C bytes for the float32 embedding, and where that is the projection, too, 2 V C for the projection's
own copy; 4 bytes a parameter on the host while it is loaded; twice the bytes of what a pass holds between products.
Traffic: of a Llama layer with feed-forward size F, norms and feed-forward blocks compiled, about 100 C + 8 F bytes a
token (products' results written and read again 10 C + 8 F, positions 28 C, roundings 42 C, norms and sums 20 C): 270 kB
at C = 2,048 and F = 8,192, 0.08 microseconds at 3.3 TB/s beside 0.2 for the layer's products at 650 TFLOP/s.
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
