"""Reading of a heads file: a selector's own JSON, or a plain list of [layer, head] pairs."""

import json
from pathlib import Path

from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import Selector, heads_from_pairs


def read_heads(path: Path) -> Selector | tuple[Head, ...]:
    """The selector, or the heads, that the file holds. Raises `ValueError` naming file, field and value."""
    try:
        text = path.read_bytes().decode()
        stored = json.loads(text)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON: {error}") from error
    try:
        return Selector.from_json(text) if isinstance(stored, dict) else heads_from_pairs(stored)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
