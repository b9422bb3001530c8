"""A model's weights as one safetensors file whose bytes follow from the tensors alone.

Tensors stand in it from the widest element type to the narrowest, equals by name, back to back, behind a compact
header: as `save_pretrained` writes a single file of one type, which is therefore canonical as it is. How many files
they came in, in which order they stood there, and what else the headers said is left behind.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from attninf_assets.selector.model_directory import INDEX, WEIGHTS, file_sha256, has_index

_CHUNK = 1 << 22
_LENGTH = 8  # bytes of a safetensors file that say how long its header is
_METADATA = {"format": "pt"}  # as `save_pretrained` writes it


@dataclass(frozen=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int  # of its bytes in that file
    n_bytes: int

    @property
    def bits_per_element(self) -> int:
        return 8 * self.n_bytes // max(1, prod(self.shape))


def link_weights(source: Path, destination: Path) -> None:
    """Link the weight files of the directory `source`, whatever their form, into the directory `destination`."""
    for name in [*_files(source), *([INDEX] if has_index(source) else [])]:
        (destination / name).symlink_to((source / name).resolve())


def move_weights(source: Path, destination: Path) -> None:
    """Write the weights of the directory `source`, which need not stay there, in canonical form into `destination`."""
    if _is_canonical(source):
        os.replace(source / WEIGHTS, destination / WEIGHTS)
    else:
        write_weights(source, destination)


def write_weights(source: Path, destination: Path) -> None:
    """Write the weights of the directory `source` in canonical form into the directory `destination`."""
    with (destination / WEIGHTS).open("wb") as written:
        if _is_canonical(source):
            with (source / WEIGHTS).open("rb") as stream:
                shutil.copyfileobj(stream, written, _CHUNK)
        else:
            for chunk in _canonical(source):
                written.write(chunk)


def weights_sha256(directory: Path) -> str:
    """sha256 of the canonical file of the weights in `directory`, in whatever form they lie there; nothing is written.

    Two directories with the same tensors have the same; reads every byte once, a chunk at a time.
    """
    if _is_canonical(directory):
        return file_sha256(directory / WEIGHTS)
    digest = hashlib.sha256()
    for chunk in _canonical(directory):
        digest.update(chunk)
    return digest.hexdigest()


def _is_canonical(directory: Path) -> bool:
    """Whether the weights are one file already that has the header of the canonical one."""
    if not (directory / WEIGHTS).exists():
        return False
    header = _header(_in_order(_tensors(directory)))
    with (directory / WEIGHTS).open("rb") as stream:
        return stream.read(len(header)) == header


def _canonical(directory: Path) -> Iterator[bytes]:
    tensors = _in_order(_tensors(directory))
    yield _header(tensors)
    with ExitStack() as stack:
        opened = {name: stack.enter_context((directory / name).open("rb")) for name in _files(directory)}
        for tensor in tensors:
            stream = opened[tensor.file]
            stream.seek(tensor.start)
            left = tensor.n_bytes
            while left:
                chunk = stream.read(min(left, _CHUNK))
                if not chunk:
                    raise ValueError(f"{directory / tensor.file}: ends inside tensor {tensor.name}")
                left -= len(chunk)
                yield chunk


def _header(tensors: list[_Tensor]) -> bytes:
    """Length and header of the file that holds these tensors in this order, padded with spaces to eight bytes."""
    content: dict[str, Any] = {"__metadata__": _METADATA}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.n_bytes
        content[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (start, end)}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH, "little") + text


def _in_order(tensors: list[_Tensor]) -> list[_Tensor]:
    return sorted(tensors, key=lambda tensor: (-tensor.bits_per_element, tensor.name))


def _tensors(directory: Path) -> list[_Tensor]:
    """Every tensor of the model's weight files, as transformers loads them."""
    found: list[_Tensor] = []
    for name in _files(directory):
        with (directory / name).open("rb") as stream:
            found += _tensors_in(name, stream)
    return found


def _tensors_in(file: str, stream: BinaryIO) -> list[_Tensor]:
    n_bytes = int.from_bytes(stream.read(_LENGTH), "little")
    content = json.loads(stream.read(n_bytes))
    content.pop("__metadata__", None)
    return [
        _Tensor(name, of["dtype"], tuple(of["shape"]), file, _LENGTH + n_bytes + start, end - start)
        for name, of in content.items()
        for start, end in [of["data_offsets"]]
    ]


def _files(directory: Path) -> list[str]:
    """Names of the files that transformers loads: those that the index names, where there is one."""
    if not has_index(directory):
        return [WEIGHTS]
    weight_map = json.loads((directory / INDEX).read_text(encoding="utf-8"))["weight_map"]
    return sorted(set(weight_map.values()))
