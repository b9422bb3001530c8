"""A model's config and tokenizer as they are pinned: only what decides numbers, in one way of writing it.

What a library writes beside that (its version, where the files came from, whether it was offline) is left behind, so
the same model has the same files on every machine.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from attninf_assets.selector.model_directory import CONFIG, SLOW_TOKENIZER_FILES, TOKENIZER, TOKENIZER_CONFIG

# Of config.json. A field that is not named here is kept: it may decide numbers, in this release of transformers or
# the next. What precision and attention kernel are asked for decides nothing here, as both are the selector's.
_INCIDENTAL = {
    "_attn_implementation", "_attn_implementation_autoset", "_commit_hash", "_experts_implementation",
    "_model_name_or_path", "_name_or_path", "attn_implementation", "auto_map", "dtype", "is_local", "local_files_only",
    "name_or_path", "torch_dtype", "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
}  # fmt: skip
# Of tokenizer_config.json, where there is no tokenizer.json: how chats are written, what is done beyond tokenizing.
_INCIDENTAL_OF_TOKENIZERS = _INCIDENTAL | {
    "add_bos_token", "add_eos_token", "backend", "chat_template", "clean_up_tokenization_spaces", "max_length",
    "model_input_names", "model_max_length", "pad_to_multiple_of", "padding_side", "processor_class", "return_tensors",
    "special_tokens_map_file", "stride", "tokenizer_file", "truncation_side", "truncation_strategy", "use_fast",
}  # fmt: skip


def write_config(config: dict[str, Any], destination: Path) -> None:
    """Write `config`, the content of a config.json, into the directory `destination`."""
    _write(destination / CONFIG, _deciding(config))


def write_tokenizer(tokenizer: Any, source: Path, destination: Path) -> None:
    """Write the tokenizer that transformers loaded from the directory `source` into the directory `destination`.

    A fast one, wherever it came from, is a tokenizer.json with its BOS and EOS beside it. A slow one is the files it
    was loaded from.
    """
    if not tokenizer.is_fast:
        fields = json.loads((source / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
        fields = {name: value for name, value in fields.items() if name not in _INCIDENTAL_OF_TOKENIZERS}
        _write(destination / TOKENIZER_CONFIG, fields | {"tokenizer_class": type(tokenizer).__name__})
        for name in SLOW_TOKENIZER_FILES:
            if (source / name).exists():
                shutil.copyfile(source / name, destination / name)
        return
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    # Batches and whatever is put around a text are not the tokenizer's business here, and nothing is drawn at random.
    content |= {"truncation": None, "padding": None, "post_processor": None}
    if "dropout" in content["model"]:
        content["model"]["dropout"] = None
    _write(destination / TOKENIZER, content)
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token")}
    written = {name: str(token) for name, token in tokens.items() if token is not None}
    _write(destination / TOKENIZER_CONFIG, written | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _deciding(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config, and of the configs of its parts, that are not incidental."""
    kept = {name: value for name, value in config.items() if name not in _INCIDENTAL}
    for name, value in kept.items():
        if isinstance(value, dict) and "model_type" in value:
            kept[name] = _deciding(value)
    return kept


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, sort_keys=True, indent=1) + "\n", encoding="utf-8")
