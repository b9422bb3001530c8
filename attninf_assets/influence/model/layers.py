"""The layers of a loaded model: its decoder's, and the linear layers inside them."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from attninf_assets.influence.model.sixteen_bit import SixteenBitLinear


def decoder_layers(model: Any) -> torch.nn.ModuleList:
    """The model's decoder layers, in order; raises `ValueError` naming the architecture where there is no such list."""
    config = model.config.get_text_config()
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.num_hidden_layers:
            return module
    raise ValueError(
        f"architecture {config.model_type!r}: found no list of its {config.num_hidden_layers} decoder layers"
    )


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer, its place in the model, and what it multiplies by: x W^T + b."""

    parent: torch.nn.Module
    name: str
    linear: torch.nn.Module

    @property
    def weight_NK(self) -> torch.Tensor:
        """The weights, outputs × inputs."""
        weight: torch.Tensor = self.linear.weight
        return weight.detach().T if type(self.linear) is Conv1D else weight.detach()

    @property
    def bias_N(self) -> torch.Tensor | None:
        """The bias, if there is one."""
        bias: torch.Tensor | None = self.linear.bias
        return bias

    def put(self, module: torch.nn.Module) -> None:
        """Put `module` in its place in the model."""
        setattr(self.parent, self.name, module)


def linear_layers(module: torch.nn.Module) -> list[LinearLayer]:
    """The linear layers inside `module`, those of a class of their own left out."""
    return [
        LinearLayer(parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) in (torch.nn.Linear, Conv1D, SixteenBitLinear)
    ]
