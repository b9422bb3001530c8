"""The files that a model consists of, and the digests by which one model is told from another."""

import hashlib
import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from attninf_assets.selector.model_source import ModelDigests

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_SHARDS = "model*.safetensors"  # what transformers loads, and no copy beside it
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "chat_template.jinja",
)  # fmt: skip
PATTERNS = (CONFIG, "generation_config.json", *TOKENIZER_FILES, _SHARDS, INDEX)
_VOLATILE = ("transformers_version", "_name_or_path", "_model_name_or_path")  # of config.json: say nothing about scores


def model_files(directory: Path) -> list[Path]:
    """Everything in the directory that belongs to the model, by name; an index that nothing reads does not."""
    found = [file for file in sorted(directory.iterdir()) if any(fnmatchcase(file.name, p) for p in PATTERNS)]
    return [file for file in found if file.name != INDEX or has_index(directory)]


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files, by name."""
    return sorted(directory.glob(_SHARDS))


def has_index(directory: Path) -> bool:
    """Whether the weights are found by an index, which transformers reads only where there is no single file."""
    return (directory / INDEX).exists() and not (directory / _SINGLE).exists()


def file_digests(directory: Path) -> dict[str, str]:
    """sha256 of every file of the model, by name."""
    return {file.name: _file_sha256(file) for file in model_files(directory)}


def digest_model(directory: Path) -> ModelDigests:
    """Digests of a Hugging Face directory: equal digests give equal scores."""
    return digests_of_files(directory, file_digests(directory))


def digests_of_files(directory: Path, sha256_of: Mapping[str, str]) -> ModelDigests:
    """`digest_model`, where the files' sha256 is known already."""
    tokenizer = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if name in sha256_of:
            tokenizer.update(f"{name}:{sha256_of[name]}".encode())
    config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    architecture = {key: value for key, value in config.items() if key not in _VOLATILE}
    model = hashlib.sha256(json.dumps(architecture, sort_keys=True).encode())
    for file in weight_files(directory):
        model.update(f"{file.name}:{sha256_of[file.name]}".encode())
    if has_index(directory):
        weight_map = json.loads((directory / INDEX).read_text(encoding="utf-8"))["weight_map"]
        model.update(f"weight_map:{json.dumps(weight_map, sort_keys=True)}".encode())
    model.update(tokenizer.digest())
    return ModelDigests(model.hexdigest(), tokenizer.hexdigest())


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
