"""Small JSON files under the root that hold one dataclass each: read whole, or refused with the file's name."""

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from attninf_assets.store.root import Root

__all__ = ["read_record"]

_Record = TypeVar("_Record")


def read_record(root: Root, path: str, kind: type[_Record], *, made_by: str) -> _Record:
    """The dataclass that a JSON file under the root holds.

    Every field must be there with a value of its very type. Raises FileNotFoundError where there is no file, and
    ValueError naming the file, the first fault in it and `made_by`, the asset that writes it anew.
    """
    content = root.read_bytes(path)
    try:
        return TypeAdapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        fault = f"{where}: {first['msg']}" if where else first["msg"]
        raise ValueError(f"{root.uri}/{path}: damaged, materialize {made_by} again: {fault}") from error
