"""Small JSON files under the root that hold one object each: read whole, or refused with the file's name.

Each is sealed: its last field is the sha256 of all before that, so any bit that changed is noticed. Files without that
field are of release 0.1.0, which did not seal them; they count as they are.
"""

import hashlib
import json
import re
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from attninf_assets.store.root import Root

__all__ = ["SealError", "fault_of_record", "read_record", "sealed", "unsealed"]

_Record = TypeVar("_Record")
_SEALED = re.compile(rb'(.*), "sha256": "([0-9a-f]{64})"\}', re.DOTALL)
_BEGIN, _END = b', "sha256": "', b'"}'
_MISPRINTS = 2  # bytes of the seal's own punctuation that may differ before it counts as no seal


class SealError(ValueError):
    """A sealed file is not what was written."""


def sealed(text: str) -> bytes:
    """A JSON object with at least one field, as text, with the field that seals it."""
    begin = text.rstrip().removesuffix("}").rstrip().encode()
    assert begin != b"{", "an object without fields"
    return begin + _BEGIN + hashlib.sha256(begin).hexdigest().encode() + _END


def unsealed(data: bytes) -> bytes:
    """The JSON object without its seal; as it is, where it has none. Raises SealError where it is damaged."""
    match = _SEALED.fullmatch(data)
    if match is None and not _has_something_like_a_seal(data):
        return data
    if match is None or hashlib.sha256(match[1]).hexdigest().encode() != match[2]:
        raise SealError("its bytes are not those that were written: the sha256 at its end differs")
    return match[1] + b"}"


def fault_of_record(root: Root, path: str) -> str:
    """What is wrong with a file that was sealed; nothing where it is gone meanwhile."""
    try:
        json.loads(unsealed(root.read_bytes(path)))
    except FileNotFoundError:
        return ""
    except ValueError as error:
        return str(error)
    return ""


def read_record(root: Root, path: str, kind: type[_Record], *, made_by: str) -> _Record:
    """The dataclass that a JSON file under the root holds.

    Every field must be there with a value of its very type. Raises FileNotFoundError where there is no file, and
    ValueError naming the file, the first fault in it and `made_by`, the asset that writes it anew.
    """
    content = root.read_bytes(path)
    try:
        return TypeAdapter(kind).validate_json(unsealed(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        fault = f"{where}: {first['msg']}" if where else first["msg"]
        raise ValueError(f"{root.uri}/{path}: damaged, materialize {made_by} again: {fault}") from error
    except SealError as error:
        raise ValueError(f"{root.uri}/{path}: damaged, materialize {made_by} again: {error}") from error


def _has_something_like_a_seal(data: bytes) -> bool:
    begin = len(data) - len(_END) - 64 - len(_BEGIN)
    if begin < 0:
        return False
    found = data[begin : begin + len(_BEGIN)] + data[-len(_END) :]
    return sum(a != b for a, b in zip(found, _BEGIN + _END, strict=True)) <= _MISPRINTS
