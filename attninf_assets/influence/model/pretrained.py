"""Loading of pinned models from disk, and access to the layers of a loaded model.

Weights come from safetensors, never from pickles, and no code that travels with a model is ever run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from attninf_assets.influence.model.numeric_class import NumericClass


def load_model(directory: Path, *, numeric_class: NumericClass, device: torch.device) -> Any:
    """The causal LM of a pinned directory, in evaluation mode, weights in the numeric class; for float8 in bfloat16.

    Raises `ValueError` where the weight files lack a parameter, which transformers would fill with random numbers.
    """
    dtype = torch.float32 if numeric_class == "float32" else torch.bfloat16
    return _loaded(directory, dtype=dtype).to(device).eval()


def require_loadable(directory: Path) -> None:
    """Raise `ValueError`, or what transformers raises, where `load_model` would fail; no weight is read.

    Everything is placed on the meta device, so names and shapes are compared and nothing is allocated for them.
    """
    _loaded(directory, dtype=torch.float32, device_map={"": "meta"})


def load_config(directory: Path) -> Any:
    """The config of a pinned directory, with plain attention and experts whatever it asks for.

    transformers takes the implementation of attention from the config even where another is asked for, and fetches
    one named `org/name` from the hub, code included.
    """
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    config._attn_implementation = "eager"
    config._experts_implementation = None  # the model's default
    return config


def _loaded(directory: Path, **how: Any) -> Any:
    model, loading = AutoModelForCausalLM.from_pretrained(
        directory,
        config=load_config(directory),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        **how,
    )
    refuse_missing_parameters(loading, directory)
    return model


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
    """A linear layer and its place in the model."""

    parent: torch.nn.Module
    name: str
    linear: torch.nn.Linear

    def put(self, module: torch.nn.Module) -> None:
        """Put `module` in its place in the model."""
        setattr(self.parent, self.name, module)


def linear_layers(module: torch.nn.Module) -> list[LinearLayer]:
    """The linear layers inside `module`, those of a class of their own left out."""
    return [
        LinearLayer(parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is torch.nn.Linear
    ]


def choose_numeric_class(device: torch.device) -> NumericClass:
    """The default numeric class on a device: bfloat16 on CUDA, float32 elsewhere."""
    return "bfloat16" if device.type == "cuda" else "float32"


def refuse_missing_parameters(loading: dict[str, Any], where: Path) -> None:
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"{where}: {len(missing)} of the model's parameters are not in its weight files, {missing[0]} among them"
        )
