"""Whether a model of a 16-bit class keeps its residual stream in float32, seen from outside its layers."""

from typing import Any

import torch

from attninf_assets.influence.model.head import BASE
from attninf_assets.influence.model.layers import decoder_layers
from attninf_assets.influence.model.packing import Pack
from attninf_assets.influence.model.sixteen_bit import SixteenBitLinear
from attninf_assets.influence.model.streamed_model import StreamedModel


def require_float32_residual(model: StreamedModel, packed: Pack) -> None:
    """Raise `ValueError` naming the architecture and the part that does not keep the residual stream in float32.

    That is a module with 16-bit weights that is none of ours, whose results would be 16-bit; or a layer whose output is
    not float32, or was rounded to 16 bits: a forward pass that casts the stream to 16 bits and back leaves float32 in
    which all numbers are 16-bit ones, which sums of products are not by chance.
    """
    name = model.config.model_type
    faults = [
        f"{type(module).__name__} {path} has 16-bit weights"
        for path, module in model.model.named_modules()
        if not isinstance(module, SixteenBitLinear)
        and any(p.dtype == torch.bfloat16 and p.ndim < 3 for p in module.parameters(recurse=False))
    ]
    if faults:
        raise _refused(name, faults[0])

    def look(number: int, out: Any) -> None:
        hidden = out[0] if isinstance(out, tuple) else out
        if hidden.dtype != torch.float32:
            faults.append(f"layer {number} puts out {hidden.dtype}")
        elif torch.equal(hidden, hidden.bfloat16().float()):
            faults.append(f"layer {number} rounds what it puts out to bfloat16")

    handles = [
        layer.register_forward_hook(lambda _module, _args, out, number=number: look(number, out))
        for number, layer in enumerate(decoder_layers(model.model))
    ]
    try:
        last = model.hidden_STC(packed, [BASE])
    finally:
        for handle in handles:
            handle.remove()
    if last.dtype != torch.float32:
        faults.append(f"its last norm puts out {last.dtype}")
    if faults:
        raise _refused(name, faults[0])


def _refused(architecture: str, fault: str) -> ValueError:
    return ValueError(
        f"architecture {architecture!r}: {fault}, the 16-bit classes keep the residual stream in float32; "
        "this is not supported, use numeric_class float32"
    )
