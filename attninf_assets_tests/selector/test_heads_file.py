"""Heads kept in a file come back as they were, or the file is refused by name, field and value."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import Selector
from attninf_assets.selector.heads_file import read_heads

SELECTOR = Selector("m" * 64, "t" * 64, (Head(1, 2), Head(0, 3)), "zero", 99, "eos", "bfloat16")
FIELDS: dict[str, Any] = json.loads(SELECTOR.to_json())


def test_a_selector_comes_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "selector.json").write_text(SELECTOR.to_json() + "\n")
    assert read_heads(tmp_path / "selector.json") == SELECTOR


def test_a_list_of_pairs_is_heads(tmp_path: Path) -> None:
    (tmp_path / "heads.json").write_text("[[3, 1], [0, 2]]")
    assert read_heads(tmp_path / "heads.json") == (Head(3, 1), Head(0, 2))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is not JSON"),
        ("[[1, 2]", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("3", "heads: 3 is not a list of"),
        ("[]", r"heads: \[\] is not a list of"),
        ("[[1, 2], [3]]", r"heads\[1\]: \[3\] is not a pair"),
        ("[[1, -2]]", r"heads\[0\]: \[1, -2\] is not a pair"),
        ("[[1, true]]", r"heads\[0\]: \[1, True\] is not a pair"),
        ("[[1, 2.0]]", r"heads\[0\]: \[1, 2\.0\] is not a pair"),
        ('["L1H2"]', r"heads\[0\]: 'L1H2' is not a pair"),
        ("[[1, 2], [1, 2]]", r"heads\[1\]: L1H2 is there twice"),
        ("{}", "model_digest: missing"),
        (json.dumps(FIELDS | {"extra": 1}), "extra: unknown"),
        (json.dumps(FIELDS | {"mask": "median"}), "mask must be one of uniform, zero, is 'median'"),
        (json.dumps(FIELDS | {"mask": 3}), "mask: 3 is not a string"),
        (json.dumps(FIELDS | {"max_tokens": "99"}), "max_tokens: '99' is not an integer"),
        (json.dumps(FIELDS | {"max_tokens": 0}), "max_tokens must be at least 1, is 0"),
        (json.dumps(FIELDS | {"heads": None}), "heads: None is not a list"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_with_its_name(
    tmp_path: Path, content: str, complaint: str
) -> None:
    path = tmp_path / "heads.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"heads.json: {complaint}"):
        read_heads(path)


def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.json: cannot be read: No such file"):
        read_heads(tmp_path / "absent.json")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(sorted(FIELDS)), inner),
    max_leaves=8,
)


@given(value=_JSON | st.dictionaries(st.sampled_from(sorted(FIELDS)), _JSON).map(lambda some: FIELDS | some))
def test_whatever_json_the_file_holds_it_is_read_or_refused_by_name(
    value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    try:
        held = read_heads(path)
    except ValueError as error:
        refused = error
        held = None
    if held is None:
        assert str(refused).startswith(f"{path}: ")
    else:
        assert isinstance(held, Selector | tuple)
