"""Pinning a pretrained model as a plain Hugging Face directory, in one form wherever it is done.

Weights come from safetensors or GGUF, never from pickles, and no code that travels with a model is ever run.
"""

import os
import tempfile
from math import prod
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from attninf_assets.corpus.printable import shortened
from attninf_assets.influence.model.pretrained import load_config, refuse_missing_parameters, require_loadable
from attninf_assets.influence.model.text_tokenizer import TextTokenizer, load_tokenizer
from attninf_assets.selector.canonical_files import write_config, write_tokenizer
from attninf_assets.selector.canonical_weights import link_weights, move_weights, weights_sha256, write_weights
from attninf_assets.selector.model_directory import (
    CONFIG,
    INDEX,
    PATTERNS,
    SLOW_TOKENIZER_FILES,
    TOKENIZER,
    TOKENIZER_CONFIG,
    WEIGHTS,
    digests_of_files,
    file_sha256,
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
from attninf_assets.store.scratch import scratch_directory

_PACKED = 8  # weights that quantization packs into one stored element, at most
_ROOM = 2**26  # elements that a model may make beside its weights: rotary and mask buffers
_PLAIN_TEXT = (
    'The old keeper didn\'t measure 3,141 lamps; the others ("naïve", they said) did.\n\n'
    "    def f(x):\n\treturn x ** 2  # Übung\r\n"
    "\u4f60\u597d\uff0c\u4e16\u754c \u0420\u0443\u0441 \u0645\u0631\u062d\u0628\u0627 \U0001f600 e\u0301"
)


def pin_model(source: str, destination: Path, *, link: bool = False) -> ModelDigests:
    """Write the model at `source` to the directory `destination`, empty or new, as a plain Hugging Face directory.

    `source` is a directory, a GGUF file, or a hub id with its revision (`org/name@revision`). With `link`, the weight
    files of a directory are linked and not copied, for a destination that lives no longer than they do.

    What is written is canonical: the tensors as one safetensors file, the tokenizer as one tokenizer.json, of the
    config what decides numbers. The digests are made of that. So they are the same on every machine, in however many
    files the weights came and whatever a library wrote beside them; any other tensor, field or token makes others.

    Raises `ValueError` naming the source, and the file, field and value where they are known, where it does not exist,
    has no safetensors or GGUF weights, needs remote code, has files that are damaged or lie elsewhere, claims sizes
    that its weights do not have, or its tokenizer knows tokens the model does not embed or lets texts say special
    tokens. What is pinned can be loaded.
    """
    path = Path(os.path.expanduser(source))
    is_gguf = path.suffix == ".gguf"
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pinning-", dir=destination.parent) as scratch:
        alone = Path(scratch)  # the model's files, and nothing beside them that could have a say in it
        if is_gguf:
            if not os.path.isfile(path):
                raise ValueError(f"selector {shortened(repr(source))}: no such GGUF file")
            _convert_gguf(path, alone)
        elif os.path.isdir(path):
            _gather(path, alone)
        elif HUB_ID.fullmatch(source):
            _gather(_download(source), alone)
        else:
            raise ValueError(
                f"selector {shortened(repr(source))} is neither a directory, nor a .gguf file, nor a hub id with "
                "revision (org/name@revision)"
            )
        require_sound_files(alone, source)
        tokenizer = _usable_tokenizer(alone, source)
        destination.mkdir(exist_ok=True)
        cannot = "cannot be brought into canonical form"
        with refused_as(source, f"{CONFIG} {cannot}", copy=alone):
            write_config(read_json(alone / CONFIG, source), destination)
        with refused_as(source, f"its tokenizer ({_tokenizer_files(alone)}) {cannot}", copy=alone):
            write_tokenizer(tokenizer, alone, destination)
            _require_that_text_is_data(destination, tokenizer, source)
        with refused_as(source, f"{', '.join(file.name for file in weight_files(alone))} {cannot}", copy=alone):
            (move_weights if is_gguf else link_weights if link else write_weights)(alone, destination)
    what = "its weight files are not those of the model that config.json describes"
    with refused_as(source, what, copy=destination):
        require_loadable(destination)
    return digest_model(destination)


def digest_model(directory: Path) -> ModelDigests:
    """Digests of a pinned directory, its weights in whatever form: equal digests give equal scores."""
    weights = {*weight_files(directory), directory / INDEX}
    others = {file.name: file_sha256(file) for file in model_files(directory) if file not in weights}
    return digests_of_files(others | {WEIGHTS: weights_sha256(directory)})


def _convert_gguf(path: Path, destination: Path) -> None:
    """De-quantize to float32. A GGUF-loaded model refuses to be saved, so its weights move into a plain one.

    The file is read through a link in a directory of its own: what lies beside it has no say in the model.
    """
    require_sane_gguf(path)
    with scratch_directory("gguf") as alone, refused_as(path, "it cannot be converted"):
        (alone / path.name).symlink_to(path.resolve())
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


def _gather(source: Path, alone: Path) -> None:
    """Links to the model's files in the directory `source`, which must be files inside it."""
    if not (source / CONFIG).is_file():
        raise RefusedModelError(source, "no config.json, so not a Hugging Face model directory")
    if not weight_files(source):
        pickles = sorted(p.name for p in [*source.glob("*.bin"), *source.glob("*.pt"), *source.glob("*.pth")])
        found = f"; {', '.join(pickles)} are pickles, which are never loaded" if pickles else ""
        raise RefusedModelError(source, f"no model*.safetensors weights in it{found}")
    require_files_inside(source, source)
    for file in model_files(source):
        (alone / file.name).symlink_to(file.resolve())


def _download(source: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415, a transformers dependency, needed for hub sources only

    repo_id, revision = source.split("@")
    return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(PATTERNS)))


def _usable_tokenizer(directory: Path, source: str) -> Any:
    """The tokenizer of a model that transformers can make, none of whose tokens the model lacks."""
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
    if (directory / TOKENIZER).exists():
        with refused_as(source, f"{TOKENIZER} cannot be used", copy=directory):
            Tokenizer.from_file(str(directory / TOKENIZER))
    with refused_as(source, f"its tokenizer cannot be used ({_tokenizer_files(directory)})", copy=directory):
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        TextTokenizer.of(tokenizer, where=source)
        largest = max(tokenizer.get_vocab().values())
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
    return tokenizer


def _tokenizer_files(directory: Path) -> str:
    """The files of the tokenizer that are there, for messages."""
    of_tokenizer = (TOKENIZER, TOKENIZER_CONFIG, *SLOW_TOKENIZER_FILES)
    there = ", ".join(file.name for file in model_files(directory) if file.name in of_tokenizer)
    return there or f"there is no {TOKENIZER}"


def _require_that_text_is_data(directory: Path, tokenizer: Any, source: str) -> None:
    """Refuse a tokenizer that, as it was pinned in `directory`, texts can make say a special token, or that is another
    than the one it was made from."""
    pinned = load_tokenizer(directory)
    name = f"{TOKENIZER if tokenizer.is_fast else TOKENIZER_CONFIG}, a {type(tokenizer).__name__}"
    if (token := pinned.unsplit_token()) is not None:
        raise RefusedModelError(
            source,
            f"{name}, cannot split special tokens: a text that holds {token!r} is given token "
            f"{pinned.special_tokens[token]}, which is for control alone",
        )
    if not any(token in _PLAIN_TEXT for token in pinned.special_tokens):
        expected, found = tokenizer(_PLAIN_TEXT, add_special_tokens=False)["input_ids"], pinned.encode(_PLAIN_TEXT)
        if found != expected:
            raise RefusedModelError(source, f"{name}, does more to a text than its files say: {_PLAIN_TEXT!r}")


def _elements(config: Any) -> int:
    """Elements of all parameters and buffers of a model with this config, of which none is made."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])
