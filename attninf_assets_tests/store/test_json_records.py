"""read_record: a dataclass from a JSON file, whole or refused with the file's name."""

import json
from dataclasses import dataclass

import pytest

from attninf_assets.store.json_records import read_record
from attninf_assets.store.root import Root


@dataclass(frozen=True)
class Part:
    """A number."""

    number: float


@dataclass(frozen=True)
class Whole:
    """A name, parts of it, and a flag."""

    name: str
    parts: tuple[Part, ...]
    flag: bool


PLAIN = {"name": "n", "parts": [{"number": 0.1}, {"number": 2}], "flag": False}


def _read(root: Root) -> Whole:
    return read_record(root, "a/b.json", Whole, made_by="an_asset")


def test_a_record_is_read_with_its_parts_or_is_not_there(root: Root) -> None:
    with pytest.raises(FileNotFoundError):
        _read(root)
    root.write_bytes("a/b.json", json.dumps(PLAIN).encode())
    assert _read(root) == Whole("n", (Part(0.1), Part(2.0)), flag=False)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (json.dumps(PLAIN).encode()[:-3], "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b"{}", "name: Field required"),
        (json.dumps(PLAIN | {"flag": "false"}).encode(), "flag: Input should be a valid boolean"),
        (
            json.dumps(PLAIN | {"parts": [{"number": "1"}]}).encode(),
            r"parts\.0\.number: Input should be a valid number",
        ),
    ],
)
def test_a_damaged_record_is_refused_with_file_fault_and_remedy(root: Root, content: bytes, fault: str) -> None:
    root.write_bytes("a/b.json", content)
    with pytest.raises(ValueError, match=rf"{root.uri}/a/b\.json: damaged, materialize an_asset again: {fault}"):
        _read(root)
