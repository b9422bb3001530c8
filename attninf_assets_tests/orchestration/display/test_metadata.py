"""Whatever of a corpus comes into metadata is shown, and does nothing there."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from attninf_assets import orchestration
from attninf_assets.corpus.printable import printable
from attninf_assets.orchestration.display.metadata import as_json

_text = st.text() | st.sampled_from(["\x1b[2J", "a\u202eb", "a\nb", "a\\nb", "\u2028", "<img src=x>", "\ud800"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in _strings(part)]
    return [text for part in value for text in _strings(part)] if isinstance(value, list) else []


def _size(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + sum(map(_size, parts))


@given(_json)
def test_nothing_acts_in_a_json_and_nothing_is_lost_of_it(value: Any) -> None:
    shown = as_json({"of": value}).data
    assert all(text == printable(text) for text in _strings(shown))
    assert _size(shown) == _size({"of": value})
    json.dumps(shown).encode()


def test_every_json_in_metadata_is_made_harmless() -> None:
    """All but one place go through `as_json`, whatever they hold today."""
    assert orchestration.__file__ is not None
    sources = {path.name: path.read_text() for path in Path(orchestration.__file__).parent.rglob("*.py")}
    made = [name for name, text in sources.items() if "MetadataValue.json(" in text or "JsonMetadataValue(" in text]
    assert made == ["metadata.py"]
