"""The selector: a pinned model, its retrieval heads and the settings that decide every score, with its fingerprint."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from attninf_assets.influence.model.head import MASKS, Head, HeadSet, Mask
from attninf_assets.influence.model.numeric_class import NUMERIC_CLASSES, NumericClass

SCORING_VERSION = 1  # raised whenever the same inputs would give other scores beyond the stated tolerance
MAX_TOKENS = 4096


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
    numeric_class: NumericClass  # of weights and activations; losses are always float32
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
        """The retrieval heads as the set of heads to mask."""
        return frozenset(self.heads)

    @property
    def fingerprint(self) -> str:
        """sha256 over canonical JSON of every field: the only thing that decides whether a score is current."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, heads as [layer, index]."""
        fields = asdict(self) | {"heads": [[head.layer, head.index] for head in self.heads]}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The selector that `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        return cls(**fields | {"heads": tuple(Head(layer, index) for layer, index in fields["heads"])})
