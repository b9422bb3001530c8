"""Pretrained models on disk: pinning one as a Hugging Face directory, digesting it, loading it.

Weights come from safetensors or GGUF, never from pickles, and no code that travels with a model is ever run.
"""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from attninf_assets.influence.selector import NumericClass

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "chat_template.jinja",
)  # fmt: skip
_PINNED = ("config.json", "generation_config.json", *_TOKENIZER_FILES)
_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")  # what transformers loads, and no copy beside it
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+@[\w./-]+")  # org/name@revision
_VOLATILE = ("transformers_version", "_name_or_path", "_model_name_or_path")  # of config.json: say nothing about scores


@dataclass(frozen=True)
class ModelDigests:
    """What a pinned model is, independent of where it lies."""

    model: str  # sha256 over the weight files, the architecture's config and the tokenizer: names the directory
    tokenizer: str


def pin_model(source: str, destination: Path) -> ModelDigests:
    """Write the model at `source` to the empty directory `destination` as a plain Hugging Face directory.

    `source` is a directory, a GGUF file, or a hub id with its revision (`org/name@revision`). Raises `ValueError`
    naming the source where it does not exist, has no safetensors or GGUF weights, needs remote code, or its tokenizer
    knows tokens the model does not embed.
    """
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"selector {source!r}: no such GGUF file")
        _convert_gguf(path, destination)
    elif path.is_dir():
        _copy(path, destination)
    elif HUB_ID.fullmatch(source):
        _copy(_download(source), destination)
    else:
        raise ValueError(
            f"selector {source!r} is neither a directory, nor a .gguf file, nor a hub id with revision "
            "(org/name@revision)"
        )
    _check(destination, source)
    return digest_model(destination)


def digest_model(directory: Path) -> ModelDigests:
    """Digests of a Hugging Face directory: equal digests give equal scores."""
    tokenizer = hashlib.sha256()
    for name in _TOKENIZER_FILES:
        if (directory / name).exists():
            tokenizer.update(f"{name}:{_file_sha256(directory / name)}".encode())
    config = json.loads((directory / "config.json").read_text())
    architecture = {key: value for key, value in config.items() if key not in _VOLATILE}
    model = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
    for file in sorted(directory.glob("model*.safetensors")):
        model.update(f"{file.name}:{_file_sha256(file)}".encode())
    model.update(tokenizer.digest())
    return ModelDigests(model.hexdigest(), tokenizer.hexdigest())


def load_model(directory: Path, *, numeric_class: NumericClass, device: torch.device) -> Any:
    """The causal LM of a pinned directory, in evaluation mode, weights in the numeric class; for float8 in bfloat16.

    Raises `ValueError` where the weight files lack a parameter, which transformers would fill with random numbers.
    """
    model, loading = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32 if numeric_class == "float32" else torch.bfloat16,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    _refuse_missing(loading, directory)
    return model.to(device).eval()


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
        """Let `module` take its place."""
        setattr(self.parent, self.name, module)


def linear_layers(module: torch.nn.Module) -> list[LinearLayer]:
    """The linear layers inside `module`, those of a class of their own left out."""
    return [
        LinearLayer(parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is torch.nn.Linear
    ]


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer of a pinned directory; raises `ValueError` where it has neither BOS nor EOS."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise ValueError(f"{directory}: the tokenizer has neither a BOS nor an EOS token to open a document with")
    return tokenizer


def start_token(tokenizer: Any) -> tuple[str, int]:
    """What opens every window: ("bos", its id), or ("eos", its id) where there is no BOS."""
    if tokenizer.bos_token_id is not None:
        return "bos", tokenizer.bos_token_id
    return "eos", tokenizer.eos_token_id


def context_length(config: Any) -> int | None:
    """The longest row the model's positions reach, start token included; None where nothing limits it."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def choose_device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_numeric_class(device: torch.device) -> NumericClass:
    """bfloat16 where the matrix units have it, float32 elsewhere."""
    return "bfloat16" if device.type == "cuda" else "float32"


def _convert_gguf(path: Path, destination: Path) -> None:
    """De-quantize to float32. A GGUF-loaded model refuses to be saved, so its weights move into a plain one."""
    gguf = {"gguf_file": path.name, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **gguf)
    loaded, loading = AutoModelForCausalLM.from_pretrained(
        path.parent, dtype=torch.float32, output_loading_info=True, **gguf
    )
    _refuse_missing(loading, path)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(destination)
    tokenizer.save_pretrained(destination)


def _refuse_missing(loading: dict[str, Any], where: Path) -> None:
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"{where}: {len(missing)} of the model's parameters are not in its weight files, {missing[0]} among them"
        )


def _copy(source: Path, destination: Path) -> None:
    if not (source / "config.json").is_file():
        raise ValueError(f"selector {source}: no config.json, so not a Hugging Face model directory")
    if not any(source.glob("model*.safetensors")):
        pickles = sorted(p.name for p in [*source.glob("*.bin"), *source.glob("*.pt"), *source.glob("*.pth")])
        found = f"; {', '.join(pickles)} are pickles, which are never loaded" if pickles else ""
        raise ValueError(f"selector {source}: no model*.safetensors weights in it{found}")
    destination.mkdir(parents=True, exist_ok=True)
    for file in [*(source / name for name in _PINNED), *(f for pattern in _WEIGHTS for f in source.glob(pattern))]:
        if file.exists():
            shutil.copyfile(file, destination / file.name)


def _download(source: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415, a transformers dependency, needed for hub sources only

    repo_id, revision = source.split("@")
    return Path(snapshot_download(repo_id, revision=revision, allow_patterns=[*_PINNED, *_WEIGHTS]))


def _check(directory: Path, source: str) -> None:
    try:
        config_json = json.loads((directory / "config.json").read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"selector {source}: config.json is not JSON: {error}") from error
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError) as error:
        remote = " (it wants code of its own, which is never run)" if "auto_map" in config_json else ""
        raise ValueError(
            f"selector {source}: transformers does not know architecture {config_json.get('model_type')!r}{remote}"
        ) from error
    try:
        tokenizer = load_tokenizer(directory)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"selector {source}: its tokenizer cannot be used: {error}") from error
    embedded = config.get_text_config().vocab_size
    largest = max(tokenizer.get_vocab().values())
    if largest >= embedded:
        raise ValueError(
            f"selector {source}: vocabulary mismatch, the tokenizer's largest token id is {largest} "
            f"but the model embeds {embedded} tokens"
        )


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
