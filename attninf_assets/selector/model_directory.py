"""The files that a model consists of, where it comes from and as it is pinned, and the digests it is known by."""

import hashlib
import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from attninf_assets.selector.model_source import ModelDigests

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_SHARDS = "model*.safetensors"  # what transformers loads, and no copy beside it
SLOW_TOKENIZER_FILES = (  # what a tokenizer without a tokenizer.json is made of
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model",
    "spiece.model",
)  # fmt: skip
PATTERNS = (CONFIG, TOKENIZER, TOKENIZER_CONFIG, *SLOW_TOKENIZER_FILES, _SHARDS, INDEX)


def model_files(directory: Path) -> list[Path]:
    """Everything in the directory that belongs to the model, by name; an index that nothing reads does not."""
    found = [file for file in sorted(directory.iterdir()) if any(fnmatchcase(file.name, p) for p in PATTERNS)]
    return [file for file in found if file.name != INDEX or has_index(directory)]


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files, by name."""
    return sorted(directory.glob(_SHARDS))


def has_index(directory: Path) -> bool:
    """Whether the weights are found by an index, which transformers reads only where there is no single file."""
    return (directory / INDEX).exists() and not (directory / WEIGHTS).exists()


def file_digests(directory: Path) -> dict[str, str]:
    """sha256 of every file of the model, by name."""
    return {file.name: file_sha256(file) for file in model_files(directory)}


def digests_of_files(sha256_of: Mapping[str, str]) -> ModelDigests:
    """The digests of a pinned model, from the sha256 of its files: these are canonical, see `pin_model`, so equal
    models have equal files, and models with equal digests give equal scores."""
    tokenizer = _digest({name: sha256 for name, sha256 in sha256_of.items() if name not in (CONFIG, WEIGHTS)})
    return ModelDigests(_digest(sha256_of), tokenizer)


def _digest(sha256_of: Mapping[str, str]) -> str:
    written = json.dumps(dict(sha256_of), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of the file, read a piece at a time."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
