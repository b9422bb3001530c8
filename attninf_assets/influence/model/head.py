"""Query heads by their place in the model, sets of them, and the ways to switch one off; plain data."""

from dataclasses import dataclass
from typing import Literal

Mask = Literal["uniform", "zero"]
MASKS: tuple[Mask, ...] = ("uniform", "zero")


@dataclass(frozen=True, order=True)
class Head:
    """A query head of a decoder layer; both numbers 0-based. Ordered by (layer, index)."""

    layer: int
    index: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.index}"


HeadSet = frozenset[Head]
BASE: HeadSet = frozenset()  # the base model: nothing is masked
