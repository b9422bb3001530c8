"""Pinning a pretrained model as a plain Hugging Face directory.

Weights come from safetensors or GGUF, never from pickles, and no code that travels with a model is ever run.
"""

import os
import shutil
import tempfile
from math import prod
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from attninf_assets.corpus.printable import shortened
from attninf_assets.influence.model.pretrained import (
    load_config,
    load_tokenizer,
    refuse_missing_parameters,
    require_loadable,
)
from attninf_assets.selector.model_directory import (
    CONFIG,
    PATTERNS,
    TOKENIZER_FILES,
    digest_model,
    model_files,
    weight_files,
)
from attninf_assets.selector.model_source import HUB_ID, ModelDigests
from attninf_assets.selector.untrusted_model import (
    RefusedModelError,
    read_json,
    refused_as,
    require_files_inside,
    require_sane_gguf,
    require_sound_files,
    tensor_shapes,
)

_TOKENIZER = "tokenizer.json"
_PACKED = 8  # weights that quantization packs into one stored element, at most
_ROOM = 2**26  # elements that a model may make beside its weights: rotary and mask buffers


def pin_model(source: str, destination: Path, *, link: bool = False) -> ModelDigests:
    """Write the model at `source` to the empty directory `destination` as a plain Hugging Face directory.

    `source` is a directory, a GGUF file, or a hub id with its revision (`org/name@revision`). With `link`, the files of
    a directory are linked and not copied, for a destination that lives no longer than they do.

    Raises `ValueError` naming the source, and the file, field and value where they are known, where it does not exist,
    has no safetensors or GGUF weights, needs remote code, has files that are damaged or lie elsewhere, claims sizes
    that its weights do not have, or its tokenizer knows tokens the model does not embed. What is pinned can be loaded.
    """
    path = Path(os.path.expanduser(source))
    if path.suffix == ".gguf":
        if not os.path.isfile(path):
            raise ValueError(f"selector {shortened(repr(source))}: no such GGUF file")
        _convert_gguf(path, destination)
    elif os.path.isdir(path):
        _copy(path, destination, link=link)
    elif HUB_ID.fullmatch(source):
        _copy(_download(source), destination, link=link)
    else:
        raise ValueError(
            f"selector {shortened(repr(source))} is neither a directory, nor a .gguf file, nor a hub id with revision "
            "(org/name@revision)"
        )
    require_sound_files(destination, source)
    _require_usable(destination, source)
    return digest_model(destination)


def _convert_gguf(path: Path, destination: Path) -> None:
    """De-quantize to float32. A GGUF-loaded model refuses to be saved, so its weights move into a plain one.

    The file is read through a link in a directory of its own: what lies beside it has no say in the model.
    """
    require_sane_gguf(path)
    with tempfile.TemporaryDirectory() as alone, refused_as(path, "it cannot be converted"):
        (Path(alone) / path.name).symlink_to(path.resolve())
        gguf = {"gguf_file": path.name, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(alone, **gguf)
        loaded, loading = AutoModelForCausalLM.from_pretrained(
            alone, dtype=torch.float32, output_loading_info=True, attn_implementation="eager", **gguf
        )
        refuse_missing_parameters(loading, path)
        config = loaded.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        plain = type(loaded)(config)
        plain.load_state_dict(loaded.state_dict())
        plain.save_pretrained(destination)
        tokenizer.save_pretrained(destination)


def _copy(source: Path, destination: Path, *, link: bool) -> None:
    if not (source / CONFIG).is_file():
        raise RefusedModelError(source, "no config.json, so not a Hugging Face model directory")
    if not weight_files(source):
        pickles = sorted(p.name for p in [*source.glob("*.bin"), *source.glob("*.pt"), *source.glob("*.pth")])
        found = f"; {', '.join(pickles)} are pickles, which are never loaded" if pickles else ""
        raise RefusedModelError(source, f"no model*.safetensors weights in it{found}")
    require_files_inside(source, source)
    destination.mkdir(parents=True, exist_ok=True)
    for file in model_files(source):
        if link:
            (destination / file.name).symlink_to(file.resolve())
        else:
            shutil.copyfile(file, destination / file.name)


def _download(source: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415, a transformers dependency, needed for hub sources only

    repo_id, revision = source.split("@")
    return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(PATTERNS)))


def _require_usable(directory: Path, source: str) -> None:
    config_json = read_json(directory / CONFIG, source)
    architecture = config_json.get("model_type")
    if not isinstance(architecture, str) or architecture not in CONFIG_MAPPING:
        remote = " (it wants code of its own, which is never run)" if "auto_map" in config_json else ""
        raise RefusedModelError(
            source,
            f"config.json: transformers does not know architecture {shortened(repr(architecture), most=80)}{remote}",
        )
    with refused_as(source, "config.json cannot be used", copy=directory):
        config = load_config(directory)
        embedded = config.get_text_config().vocab_size
    if (directory / _TOKENIZER).exists():
        with refused_as(source, f"{_TOKENIZER} cannot be used", copy=directory):
            Tokenizer.from_file(str(directory / _TOKENIZER))
    files = ", ".join(file.name for file in model_files(directory) if file.name in TOKENIZER_FILES)
    with refused_as(source, f"its tokenizer cannot be used ({files or f'there is no {_TOKENIZER}'})", copy=directory):
        tokenizer = load_tokenizer(directory)
        largest = max(tokenizer.get_vocab().values())
        tokenizer("a")
    if largest >= embedded:
        raise RefusedModelError(
            source,
            f"config.json: vocabulary mismatch, the tokenizer's largest token id is {largest} "
            f"but the model embeds {embedded} tokens",
        )
    with refused_as(source, "config.json cannot be made a causal language model", copy=directory):
        elements = _elements(config)
    stored = sum(prod(shape) for file in weight_files(directory) for shape in tensor_shapes(file, source).values())
    if elements > _PACKED * stored + _ROOM:
        raise RefusedModelError(
            source, f"config.json describes a model of {elements:,} numbers, but its weight files hold {stored:,}"
        )
    what = "its weight files are not those of the model that config.json describes"
    with refused_as(source, what, copy=directory):
        require_loadable(directory)


def _elements(config: Any) -> int:
    """Elements of all parameters and buffers of a model with this config, of which none is made."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])
