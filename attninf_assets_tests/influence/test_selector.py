import json
from dataclasses import fields, replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import Selector

SELECTOR = Selector("m" * 64, "t" * 64, (Head(1, 2), Head(0, 5)), "uniform", 4096, "bos", "float32", scoring_version=1)
OTHER: dict[str, Any] = {
    "model_digest": "n" * 64,
    "tokenizer_digest": "u" * 64,
    "heads": (Head(1, 2),),
    "mask": "zero",
    "max_tokens": 2048,
    "start_token": "eos",
    "numeric_class": "bfloat16",
    "scoring_version": 2,
}


def test_the_fingerprint_changes_with_every_field() -> None:
    assert set(OTHER) == {field.name for field in fields(Selector)}
    fingerprints = {replace(SELECTOR, **{name: value}).fingerprint for name, value in OTHER.items()}
    assert len(fingerprints | {SELECTOR.fingerprint}) == len(OTHER) + 1


def test_the_fingerprint_stands_still_between_releases() -> None:
    """Changing it makes everyone's scores stale: raise SCORING_VERSION instead where scores change."""
    assert SELECTOR.fingerprint == "fe1310a71ec9e46a4b83e5347bdd0456fdddfb652ff360dc4b608583b6340f25"


heads = st.lists(st.builds(Head, st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=6, unique=True)


@given(heads=heads, data=st.data())
def test_the_order_of_the_heads_does_not_matter(heads: list[Head], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(heads))
    one, other = (replace(SELECTOR, heads=tuple(h)) for h in (heads, shuffled))
    assert one == other
    assert one.fingerprint == other.fingerprint
    assert one.head_set == frozenset(heads)


@given(sets=st.lists(heads, min_size=2, max_size=4, unique_by=frozenset))
def test_different_heads_have_different_fingerprints(sets: list[list[Head]]) -> None:
    for one, other in combinations(sets, 2):
        assert replace(SELECTOR, heads=tuple(one)).fingerprint != replace(SELECTOR, heads=tuple(other)).fingerprint


@given(heads=heads, max_tokens=st.integers(1, 10**6), mask=st.sampled_from(["uniform", "zero"]))
def test_a_selector_survives_its_json(heads: list[Head], max_tokens: int, mask: Any) -> None:
    selector = replace(SELECTOR, heads=tuple(heads), max_tokens=max_tokens, mask=mask)
    again = Selector.from_json(selector.to_json())
    assert again == selector
    assert again.fingerprint == selector.fingerprint


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("x", "Expecting value"),
        ("[]", r"\[\] is no selector; a selector's JSON has model_digest"),
        ("{}", "model_digest: missing"),
        ('{"extra": 1}', "extra: unknown"),
        ('{"max_tokens": "9"}', "max_tokens: '9' is not an integer"),
        ('{"heads": [[1]]}', r"heads\[0\]: \[1\] is not a pair"),
    ],
)
def test_json_of_something_else_is_refused_by_field_and_value(written: str, complaint: str) -> None:
    if written.startswith('{"'):
        changed = json.loads(written)
        written = json.dumps(json.loads(SELECTOR.to_json()) | changed)
    with pytest.raises(ValueError, match=complaint):
        Selector.from_json(written)


def test_the_json_is_canonical() -> None:
    text = SELECTOR.to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert json.loads(text)["heads"] == [[0, 5], [1, 2]]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("heads", (), "at least one retrieval head"),
        ("mask", "blank", "mask must be one of uniform, zero, is 'blank'"),
        ("start_token", "cls", "start_token must be one of bos, eos, is 'cls'"),
        ("numeric_class", "float16", "numeric_class must be one of float32, bfloat16, float8, is 'float16'"),
        ("max_tokens", 0, "max_tokens must be at least 1, is 0"),
    ],
)
def test_impossible_selectors_are_refused_with_the_field_and_the_value(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SELECTOR, **{field: value})
