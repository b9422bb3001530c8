"""Pinning a pretrained model as a plain Hugging Face directory, and digesting what it is.

Weights come from safetensors or GGUF, never from pickles, and no code that travels with a model is ever run.
"""

import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from attninf_assets.influence.model.pretrained import load_tokenizer, refuse_missing_parameters
from attninf_assets.selector.model_source import HUB_ID, ModelDigests

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "chat_template.jinja",
)  # fmt: skip
_PINNED = ("config.json", "generation_config.json", *_TOKENIZER_FILES)
_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")  # what transformers loads, and no copy beside it
_VOLATILE = ("transformers_version", "_name_or_path", "_model_name_or_path")  # of config.json: say nothing about scores


def pin_model(source: str, destination: Path, *, link: bool = False) -> ModelDigests:
    """Write the model at `source` to the empty directory `destination` as a plain Hugging Face directory.

    `source` is a directory, a GGUF file, or a hub id with its revision (`org/name@revision`). With `link`, the files of
    a directory are linked and not copied, for a destination that lives no longer than they do. Raises `ValueError`
    naming the source where it does not exist, has no safetensors or GGUF weights or broken ones, needs remote code, or
    its tokenizer knows tokens the model does not embed.
    """
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"selector {source!r}: no such GGUF file")
        _convert_gguf(path, destination)
    elif path.is_dir():
        _copy(path, destination, link=link)
    elif HUB_ID.fullmatch(source):
        _copy(_download(source), destination, link=link)
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


def _convert_gguf(path: Path, destination: Path) -> None:
    """De-quantize to float32. A GGUF-loaded model refuses to be saved, so its weights move into a plain one."""
    gguf = {"gguf_file": path.name, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **gguf)
    loaded, loading = AutoModelForCausalLM.from_pretrained(
        path.parent, dtype=torch.float32, output_loading_info=True, **gguf
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
    if not (source / "config.json").is_file():
        raise ValueError(f"selector {source}: no config.json, so not a Hugging Face model directory")
    if not any(source.glob("model*.safetensors")):
        pickles = sorted(p.name for p in [*source.glob("*.bin"), *source.glob("*.pt"), *source.glob("*.pth")])
        found = f"; {', '.join(pickles)} are pickles, which are never loaded" if pickles else ""
        raise ValueError(f"selector {source}: no model*.safetensors weights in it{found}")
    destination.mkdir(parents=True, exist_ok=True)
    for file in [*(source / name for name in _PINNED), *(f for pattern in _WEIGHTS for f in source.glob(pattern))]:
        if not file.exists():
            continue
        if link:
            (destination / file.name).symlink_to(file.resolve())
        else:
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
    for file in sorted(directory.glob("model*.safetensors")):
        try:
            with safe_open(file, framework="numpy"):  # reads the header, and compares it with the file's size
                pass
        except SafetensorError as error:
            raise ValueError(f"selector {source}: {file.name} is truncated or no safetensors file: {error}") from error
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
