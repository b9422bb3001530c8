"""read_record: a dataclass from a JSON file, whole or refused with the file's name."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.store.json_records import SealError, fault_of_record, read_record, sealed, unsealed
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


OBJECTS = st.dictionaries(st.text(max_size=8), st.text() | st.integers() | st.lists(st.text()), min_size=1, max_size=4)


@given(OBJECTS, st.sampled_from([None, 1, 2]), st.data())
def test_a_seal_changes_nothing_and_shows_any_bit_that_changed(
    stored: dict[str, object], indent: int | None, data: st.DataObject
) -> None:
    written = sealed(json.dumps(stored, indent=indent))
    assert json.loads(unsealed(written)) == stored
    assert list(json.loads(written))[-1] == "sha256"
    at, bit = data.draw(st.integers(0, len(written) - 1)), data.draw(st.integers(0, 7))
    flipped = written[:at] + bytes([written[at] ^ 1 << bit]) + written[at + 1 :]
    with pytest.raises(SealError):
        unsealed(flipped)


@given(OBJECTS)
def test_what_was_never_sealed_counts_as_it_is(stored: dict[str, object]) -> None:
    text = json.dumps(stored | {"selector_fingerprint": 64 * "a"}).encode()
    assert unsealed(text) == text


def test_a_damaged_record_is_told_and_one_that_is_gone_is_not(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    assert fault_of_record(root, "a.json") == ""
    written = sealed(json.dumps(PLAIN))
    root.write_bytes("a.json", written)
    assert fault_of_record(root, "a.json") == ""
    assert read_record(root, "a.json", Whole, made_by="an_asset") == Whole("n", (Part(0.1), Part(2.0)), flag=False)
    root.write_bytes("a.json", written.replace(b"0.1", b"0.2"))
    assert "sha256 at its end differs" in fault_of_record(root, "a.json")
    with pytest.raises(ValueError, match=r"a\.json: damaged, materialize an_asset again: .*sha256"):
        read_record(root, "a.json", Whole, made_by="an_asset")
