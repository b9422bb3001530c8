"""A model's files before anything is made of them: whatever they hold, they are refused by name or fit to be loaded.

Every refusal is a `RefusedModelError` that names the source, the file and, where it is known, the field and its value.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from attninf_assets.corpus.printable import shortened
from attninf_assets.selector.model_directory import CONFIG, INDEX, has_index, model_files, weight_files

_MAX_JSON = 1 << 28  # bytes; the largest tokenizers have some 2^25
_MAX_WORDS = 800  # characters of another library's message that are repeated
_MAX_REASON = 1_200
_LAYERS = re.compile(r"(num_(hidden_)?layers|n_layers?|(encoder|decoder)_layers)")
_COUNT = re.compile(r"(num|n)_(\w+_)?(layers?|heads?|experts?|groups?)")
_SIZE = re.compile(r"(\w+_)?(size|dim|rank)|n_(embd|inner|positions|ctx)|max_position_embeddings")
_MAX_SIZE = 2**31
_NEVER_OFF = ("vocab_size", "hidden_size", "intermediate_size", "head_dim", "n_embd")  # others say -1 for "none"
_GGUF_SIZE = re.compile(
    r"\w+\.(embedding_length|feed_forward_length|vocab_size|expert_count|expert_used_count|"
    r"attention\.(head_count|head_count_kv|key_length|value_length))"
)

Shape = tuple[int, ...]


class RefusedModelError(ValueError):
    """A model that cannot be used, with its source, the file and the reason."""

    def __init__(self, source: object, reason: str) -> None:
        super().__init__(f"selector {source}: {shortened(reason, most=_MAX_REASON)}")


@contextmanager
def refused_as(source: object, what: str, *, copy: Path | None = None) -> Iterator[None]:
    """Whatever a library makes of content that it cannot use is a refusal of the source, saying `what` could not be
    done; where its words name the `copy` it was given, they name the source. Errors of the system (disk, network) go
    through: they say nothing about the model."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, RefusedModelError) or not _is_about_content(error):
            raise
        words = " ".join(str(error).split())
        if copy is not None:
            words = words.replace(str(copy), str(source))
        words = words[:_MAX_WORDS]
        raise RefusedModelError(source, f"{what}: {type(error).__name__}: {words}") from error


def _is_about_content(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno is None  # transformers raises it for content, too
    # tokenizers are Rust, whose panics are no Exception
    return isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"


def require_files_inside(directory: Path, source: object) -> None:
    """Refuse a model whose files are anything but files inside its directory.

    Links are followed within the directory, and for a snapshot in a Hugging Face cache
    (`models--org--name/snapshots/<commit>`) within `models--org--name`, whose `blobs` they lead to.
    """
    base = directory.resolve()
    if base.parent.name == "snapshots" and base.parent.parent.name.startswith("models--"):
        base = base.parent.parent
    for file in model_files(directory):
        leads_to = Path(os.path.realpath(file))  # unlike resolve, it ends on links that lead to themselves
        if not leads_to.is_relative_to(base):
            raise RefusedModelError(source, f"{file.name} is a link to {leads_to}, outside {base}")
        if not leads_to.is_file():
            raise RefusedModelError(source, f"{file.name} is not a file")


def require_sound_files(directory: Path, source: object) -> None:
    """Refuse a model whose JSON, weight files or index are damaged, or whose config claims sizes that its weights
    do not have. Reads no weights and allocates nothing by what it reads."""
    for file in model_files(directory):
        if file.suffix == ".json":
            read_json(file, source)
    shapes = {file.name: tensor_shapes(file, source) for file in weight_files(directory)}
    if has_index(directory):
        _require_sound_index(read_json(directory / INDEX, source), shapes, source)
    elif "model.safetensors" not in shapes:
        raise RefusedModelError(source, f"{', '.join(shapes)} without {INDEX}, which says what is in them")
    config = read_json(directory / CONFIG, source)
    if config.get("transformers_weights") is not None:
        raise RefusedModelError(
            source, f"{CONFIG}: transformers_weights names other weights, {config['transformers_weights']!r}"
        )
    _require_sane_sizes(config, [shape for file in shapes.values() for shape in file.values()], source)


def read_json(file: Path, source: object) -> dict[str, Any]:
    """The object in a JSON file of the model."""
    if (size := file.stat().st_size) > _MAX_JSON:
        raise RefusedModelError(source, f"{file.name} has {size:,} bytes, more than {_MAX_JSON:,}")
    with refused_as(source, f"{file.name} is not JSON"):
        content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise RefusedModelError(source, f"{file.name} holds {_words(content)}, where an object is needed")
    return content


def tensor_shapes(file: Path, source: object) -> dict[str, Shape]:
    """Names and shapes of the tensors in a safetensors file, which must be as long as its header says."""
    with (
        refused_as(source, f"{file.name} is not a whole safetensors file"),
        safe_open(file, framework="numpy") as opened,
    ):
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def require_sane_gguf(path: Path) -> None:
    """Refuse a GGUF file that is cut off, or whose metadata claims sizes that its tensors do not have."""
    from gguf import GGUFReader  # noqa: PLC0415, slow to import and needed for GGUF files only

    class _Bounded(GGUFReader):
        """Reads nothing beyond the file's end, where an array that claims 2^62 values is read for ever."""

        def _get(self, offset: Any, dtype: Any, count: Any = 1, **how: Any) -> Any:
            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError(f"at byte {int(offset):,}: {int(count):,} values, of which the file has not all")
            return super()._get(offset, dtype, count, **how)

    with refused_as(path, "it is not a whole GGUF file"):
        reader = _Bounded(path)
        shapes = [tuple(int(n) for n in tensor.shape) for tensor in reader.tensors]
        fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")}
    for name, value in fields.items():
        if name.endswith(".block_count"):
            _require_count(name, value, most=len(shapes), of="tensors in the file", source=path)
        elif _GGUF_SIZE.fullmatch(name):
            _require_count(name, value, most=_largest(shapes), of="the largest dimension of a tensor", source=path)


def _require_sound_index(index: dict[str, Any], shapes: dict[str, dict[str, Shape]], source: object) -> None:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise RefusedModelError(source, f"{INDEX}: weight_map is {_words(weight_map)}, where an object is needed")
    if not isinstance(index.get("metadata", {}), dict):
        raise RefusedModelError(source, f"{INDEX}: metadata is {_words(index['metadata'])}, where an object is needed")
    for tensor, name in weight_map.items():
        field = f"{INDEX}: weight_map[{_words(tensor)}]"
        if not isinstance(name, str) or not re.fullmatch(r"model[^/\\]*\.safetensors", name):
            raise RefusedModelError(source, f"{field} is {_words(name)}, and not a file model*.safetensors beside it")
        if name not in shapes:
            raise RefusedModelError(source, f"{field} is {name!r}, and there is no such file")
        if tensor not in shapes[name]:
            raise RefusedModelError(source, f"{field} is {name!r}, which has no such tensor")
    for name in sorted(set(weight_map.values())):
        for tensor in shapes[name]:
            if tensor not in weight_map:
                raise RefusedModelError(source, f"{INDEX}: weight_map lacks {_words(tensor)}, which is in {name}")
            if weight_map[tensor] != name:
                raise RefusedModelError(
                    source, f"{INDEX}: weight_map[{_words(tensor)}] is {weight_map[tensor]!r}, but {name} has it too"
                )


def _require_sane_sizes(config: dict[str, Any], shapes: list[Shape], source: object, path: str = "") -> None:
    """A layer has a tensor of its own; heads, experts and groups are counted by a dimension or have tensors."""
    for key, value in config.items():
        field = f"{CONFIG}: {path}{key}"
        if isinstance(value, dict):
            _require_sane_sizes(value, shapes, source, f"{path}{key}.")
        elif _LAYERS.fullmatch(key):
            _require_count(field, value, most=len(shapes), of="tensors in the weight files", source=source)
        elif _COUNT.fullmatch(key):
            most = max(len(shapes), _largest(shapes))
            _require_count(field, value, most=most, of="the weights' tensors and dimensions", source=source)
        elif _SIZE.fullmatch(key):
            least = 0 if key in _NEVER_OFF else -1
            sizes = [size for size in _listed(value) if not isinstance(size, bool)]  # a switch named like a size
            _require_count(field, sizes, least=least, most=_MAX_SIZE, of="any size of a model", source=source)


def _require_count(field: str, value: Any, *, most: int, of: str, source: object, least: int = 0) -> None:
    for number in _listed(value):
        if number is None:
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise RefusedModelError(source, f"{field} is {_words(number)}, and not a whole number of at least {least}")
        if number > most:
            raise RefusedModelError(source, f"{field} is {_words(number)}, more than {of} ({most})")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _largest(shapes: list[Shape]) -> int:
    return max((max(shape, default=1) for shape in shapes), default=0)


def _words(value: Any) -> str:
    """The value as it can stand in a message."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**30:
        return f"a number of about {value.bit_length() * 0.30103:.0f} digits"
    words = repr(value)
    return words if len(words) <= 80 else f"{words[:80]}…"
