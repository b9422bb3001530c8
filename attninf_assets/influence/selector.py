"""The selector: a pinned model, its retrieval heads and the settings that decide every score, with its fingerprint."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Self

from attninf_assets.influence.model.head import MASKS, Head, HeadSet, Mask
from attninf_assets.influence.model.numeric_class import NUMERIC_CLASSES, NumericClass

SCORING_VERSION = 2  # raised whenever the same inputs would give other scores beyond the stated tolerance
_INTEGERS = ("max_tokens", "scoring_version")  # of a selector's fields; heads are pairs, the others strings


@dataclass(frozen=True)
class Selector:
    """A pinned model, its retrieval heads and the settings it scores by: all that decides a score, and nothing else.

    Raises `ValueError` naming the field where one has a value that is not allowed."""

    model_digest: str  # sha256 over the weight files and the architecture
    tokenizer_digest: str
    heads: tuple[Head, ...]  # the retrieval heads, sorted
    mask: Mask
    max_tokens: int  # tokens of a window, start token not counted
    start_token: str  # "bos" or "eos": which token opens every window
    numeric_class: NumericClass  # of the operands of products; all else is float32
    scoring_version: int = SCORING_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", tuple(sorted(self.heads)))
        if not self.heads:
            raise ValueError("a selector needs at least one retrieval head")
        for field, value, allowed in [
            ("mask", self.mask, MASKS),
            ("start_token", self.start_token, ("bos", "eos")),
            ("numeric_class", self.numeric_class, NUMERIC_CLASSES),
        ]:
            if value not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, is {value!r}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, is {self.max_tokens}")

    @property
    def head_set(self) -> HeadSet:
        """The retrieval heads as a set, as a stream masks them."""
        return frozenset(self.heads)

    @property
    def fingerprint(self) -> str:
        """sha256 over canonical JSON of every field: the only thing that decides whether a score is current."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, heads as [layer, index]."""
        written = asdict(self) | {"heads": [[head.layer, head.index] for head in self.heads]}
        return json.dumps(written, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The selector that `to_json` wrote. Raises `ValueError` naming a field that is missing, unknown or wrong."""
        written = json.loads(text)
        names = [field.name for field in fields(cls)]
        if not isinstance(written, dict):
            raise ValueError(f"{written!r} is no selector; a selector's JSON has {', '.join(names)}")
        if missing := [name for name in names if name not in written]:
            raise ValueError(f"{missing[0]}: missing; a selector's JSON has {', '.join(names)}")
        if unknown := [name for name in written if name not in names]:
            raise ValueError(f"{unknown[0]}: unknown; a selector's JSON has {', '.join(names)}")
        for name in names:
            kind, what = (int, "an integer") if name in _INTEGERS else (str, "a string")
            if name != "heads" and type(written[name]) is not kind:
                raise ValueError(f"{name}: {written[name]!r} is not {what}")
        return cls(**written | {"heads": heads_from_pairs(written["heads"])})


def heads_from_pairs(written: object) -> tuple[Head, ...]:
    """The heads of a list of [layer, head] pairs. Raises `ValueError` naming the first that is none, or is repeated."""
    if not isinstance(written, list) or not written:
        raise ValueError(f"heads: {written!r} is not a list of [layer, head] pairs")
    heads: list[Head] = []
    for number, pair in enumerate(written):
        if not (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)):
            raise ValueError(f"heads[{number}]: {pair!r} is not a pair [layer, head] of integers from 0 on")
        if (head := Head(*pair)) in heads:
            raise ValueError(f"heads[{number}]: {head} is there twice")
        heads.append(head)
    return tuple(heads)
