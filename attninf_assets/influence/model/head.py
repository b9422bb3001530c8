"""Query heads by their place in the model, sets of them, and the ways to switch one off; plain data."""

from collections.abc import Iterable
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


def first_masked_layer(streams: Iterable[HeadSet]) -> int | None:
    """The lowest layer in which any stream masks a head; None where none does."""
    return min((head.layer for heads in streams for head in heads), default=None)
