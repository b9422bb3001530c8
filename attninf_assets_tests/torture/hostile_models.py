"""Model directories and GGUF files that nobody should load."""

import json
import random
import re
import shutil
import struct
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from attninf_assets.influence.model.pretrained import load_model
from attninf_assets.influence.model.text_tokenizer import load_tokenizer
from attninf_assets.selector.model_directory import CONFIG, INDEX
from attninf_assets.selector.pinning import digest_model, pin_model
from attninf_assets_tests.support.tiny_gguf import tiny_gguf
from attninf_assets_tests.support.tiny_models import save_tiny_model, tiny_model
from attninf_assets_tests.torture.refusals import Met, faults_of_message
from attninf_assets_tests.torture.spoiling import (
    HOSTILE_TEXTS,
    ascii_json,
    spoiled_bytes,
    spoiled_safetensors,
    spoiled_tree,
)
from benchmarks.rigs.made_up_text import tiny_tokenizer

__all__ = ["feed_gguf", "feed_selector"]

_ARCHITECTURES = ("llama", "gemma3_text", "gpt2")
_WAYS = (
    "json",
    "json",
    "json",
    "json",
    "json",
    "bytes",
    "bytes",
    "header",
    "header",
    "cut",
    "empty",
    "nested",
    "other",
    "name",
)
_FILE = re.compile(r"[\w.-]*\.(json|safetensors|txt|jinja|model)\b")
_KEY = re.compile(
    rb"[\x01-\x40]\x00{7}((?:llama|general|tokenizer)\.[a-z_.]+)"
)  # of a GGUF's metadata, with its length


@cache
def _whole() -> Path:
    """Whole models, made once in a process: a directory for each architecture, one in several files, a GGUF file."""
    directory = Path(mkdtemp(prefix="attninf-fuzz-models-"))
    for name in _ARCHITECTURES:
        save_tiny_model(directory / name, name=name)
    tiny_model("llama").save_pretrained(directory / "sharded", max_shard_size="60KB")
    tiny_tokenizer().save_pretrained(directory / "sharded")
    tiny_gguf(directory / "tiny.gguf")
    return directory


def feed_selector(directory: Path, draw: random.Random) -> Met:
    """Spoil a model's directory and pin it; what is pinned is loaded, and computes."""
    source = Path(
        shutil.copytree(_whole() / draw.choice([*_ARCHITECTURES, "llama", "sharded", "sharded"]), directory / "source")
    )
    for _ in range(draw.choice([1, 1, 1, 2])):
        _spoil(source, draw)
    try:
        digests = pin_model(str(source), directory / "pinned")
    except ValueError as error:
        return "refused", _faults(str(error), source, names_file=True)
    if digests != digest_model(directory / "pinned"):
        return "accepted", ["the digest is not that of what was pinned"]
    model = load_model(directory / "pinned", numeric_class="float32", device=torch.device("cpu"))
    with torch.inference_mode():
        model(torch.tensor([load_tokenizer(directory / "pinned").encode("The old keeper.")]))
    return "accepted", []


def feed_gguf(directory: Path, draw: random.Random) -> Met:
    """Spoil a GGUF file and convert it."""
    file = directory / "bad.gguf"
    content = (_whole() / "tiny.gguf").read_bytes()
    for _ in range(draw.choice([1, 1, 2])):
        content = _spoiled_gguf(content, draw)
    file.write_bytes(content)
    try:
        pin_model(str(file), directory / "pinned")
    except ValueError as error:
        return "refused", _faults(str(error), file, names_file=False)
    load_model(directory / "pinned", numeric_class="float32", device=torch.device("cpu"))
    return "accepted", []


def _faults(message: str, source: Path, *, names_file: bool) -> list[str]:
    faults = faults_of_message(message, place=f"selector {source}")
    reason = message.removeprefix(f"selector {source}: ")
    if names_file and not _FILE.search(reason):
        faults.append("names no file of the model")
    if str(source.parent / "pinned") in reason:
        faults.append("speaks of a place that nobody asked for")
    return [f"{fault}: {reason[:600]!r}" for fault in faults]


def _spoil(directory: Path, draw: random.Random) -> None:
    """Spoil one file."""
    files = sorted(file for file in directory.iterdir() if file.is_file())
    way = draw.choice(_WAYS)
    documents = [file for file in files if file.suffix == ".json"]
    weights = [file for file in files if file.suffix == ".safetensors"]
    file = draw.choice(files)
    if way == "json":
        file = draw.choice([*documents, *(one for one in documents if one.name in (CONFIG, INDEX))])
        try:
            tree, _ = spoiled_tree(json.loads(file.read_text()), draw)
        except (ValueError, RecursionError):
            return  # it was spoiled before
        file.write_text(ascii_json(tree))
    elif way == "bytes":
        file.write_bytes(spoiled_bytes(file.read_bytes(), draw))
    elif way == "header" and weights:
        file = draw.choice(weights)
        try:
            file.write_bytes(spoiled_safetensors(file.read_bytes(), draw))
        except (ValueError, struct.error, RecursionError):
            return
    elif way == "cut":
        file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size + 1)])
    elif way == "empty":
        file.write_bytes(draw.choice([b"", b"{}", b"[]", b"null", b"\0", draw.randbytes(99)]))
    elif way == "nested":
        file.write_text(draw.choice(['{"a":', "[", '{"vocab_size": ' + "9" * 9, '"\\u0000']) * 20_000)
    elif way == "name" and weights:
        hostile = draw.choice(HOSTILE_TEXTS).replace("/", "").encode("utf-8", "surrogatepass").decode("utf-8", "ignore")
        draw.choice(weights).rename(directory / f"model{hostile[:50]}.safetensors")
    else:
        name = draw.choice(
            ["merges.txt", "vocab.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"]
        )
        shutil.copyfile(draw.choice(files), directory / name)


def _spoiled_gguf(content: bytes, draw: random.Random) -> bytes:
    found = list(_KEY.finditer(content))
    if not found or draw.random() < 0.4:
        return spoiled_bytes(content, draw)
    at = draw.choice(found).end()  # where the value's type stands, and then the value
    data = bytearray(content)
    if draw.random() < 0.5:
        data[at : at + 4] = struct.pack("<I", draw.choice([*range(14), 2**31, 2**32 - 1]))
    else:
        filling = struct.pack("<q", draw.choice([0, 1, 3, -1, 2**31, 2**33, 2**62, draw.randrange(300)]))
        data[at + 4 : at + 4 + draw.choice([4, 8])] = filling[: draw.choice([4, 8])]
    return bytes(data)
