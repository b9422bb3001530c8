"""Loading of pinned models from disk.

Weights come from safetensors, never from pickles, and no code that travels with a model is ever run.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from attninf_assets.influence.model.mixed_precision import to_sixteen_bit
from attninf_assets.influence.model.numeric_class import NumericClass


def load_model(directory: Path, *, numeric_class: NumericClass, device: torch.device) -> Any:
    """The causal LM of a pinned directory, in evaluation mode, matrices in the numeric class; for float8 in bfloat16.

    Raises `ValueError` where the weight files lack a parameter, which transformers would fill with random numbers.
    """
    model = _loaded(directory, dtype=torch.float32)
    return (model if numeric_class == "float32" else to_sixteen_bit(model)).to(device).eval()


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


def choose_numeric_class(device: torch.device) -> NumericClass:
    """The numeric class that every device of a kind can be trusted with: bfloat16 on CUDA, float32 elsewhere."""
    return "bfloat16" if device.type == "cuda" else "float32"


def refuse_missing_parameters(loading: dict[str, Any], where: Path) -> None:
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"{where}: {len(missing)} of the model's parameters are not in its weight files, {missing[0]} among them"
        )
