"""Reading of a heads file: a selector's own JSON, or a plain list of [layer, head] pairs."""

import json
from dataclasses import fields
from pathlib import Path

from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import Selector

_KINDS = {"max_tokens": int, "scoring_version": int}  # of a selector's fields; heads are pairs, the others strings


def read_heads(path: Path) -> Selector | tuple[Head, ...]:
    """The selector, or the heads, that the file holds. Raises `ValueError` naming file, field and value."""
    try:
        stored = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON: {error}") from error
    try:
        return _selector(stored) if isinstance(stored, dict) else _heads(stored)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _selector(stored: dict[str, object]) -> Selector:
    names = [field.name for field in fields(Selector)]
    if missing := [name for name in names if name not in stored]:
        raise ValueError(f"{missing[0]}: missing; a selector's JSON has {', '.join(names)}")
    if unknown := [name for name in stored if name not in names]:
        raise ValueError(f"{unknown[0]}: unknown; a selector's JSON has {', '.join(names)}")
    for name in names:
        kind = _KINDS.get(name, str)
        if name != "heads" and type(stored[name]) is not kind:
            raise ValueError(f"{name}: {stored[name]!r} is not {'a string' if kind is str else 'an integer'}")
    return Selector(**stored | {"heads": _heads(stored["heads"])})  # type: ignore[arg-type]


def _heads(stored: object) -> tuple[Head, ...]:
    if not isinstance(stored, list) or not stored:
        raise ValueError(f"heads: {stored!r} is not a list of [layer, head] pairs")
    heads: list[Head] = []
    for number, pair in enumerate(stored):
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)):
            raise ValueError(f"heads[{number}]: {pair!r} is not a pair [layer, head] of integers from 0 on")
        if (head := Head(*pair)) in heads:
            raise ValueError(f"heads[{number}]: {head} is there twice")
        heads.append(head)
    return tuple(heads)
