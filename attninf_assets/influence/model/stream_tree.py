"""Which streams are one row of a forward pass, layer by layer: a pure plan, made from the head sets alone.

Two streams compute the same up to and including the last layer below the first one in which their masks differ. So each
layer has a row for every distinct *prefix*: what a stream masks in this layer and those below it. Rows only ever split,
so the rows of all layers are a tree, whose root is the input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from attninf_assets.influence.model.head import HeadSet


@dataclass(frozen=True)
class StreamTree:
    """The row of every stream in every layer; rows are numbered in the order of their first streams."""

    rows_LS: tuple[tuple[int, ...], ...]

    @cached_property
    def n_rows(self) -> tuple[int, ...]:
        """The number of rows of each layer; it never falls from a layer to the next."""
        return tuple(max(rows_S, default=-1) + 1 for rows_S in self.rows_LS)

    @property
    def row_of_stream(self) -> tuple[int, ...]:
        """The row of each stream behind the last layer: where its results stand."""
        return self.rows_LS[-1]

    def stream_of_row(self, layer: int) -> tuple[int, ...]:
        """The first stream of each row of a layer: what it masks there is what all of the row's streams mask."""
        return tuple(self.rows_LS[layer].index(row) for row in range(self.n_rows[layer]))

    @cached_property
    def splits(self) -> dict[int, tuple[int, ...]]:
        """For each layer that has more rows than the one below: from which of those below each of its rows comes.

        Below the lowest layer there is one row.
        """
        found = {}
        for layer, n_rows in enumerate(self.n_rows):
            below_S = self.rows_LS[layer - 1] if layer else (0,) * len(self.rows_LS[0])
            if n_rows > (self.n_rows[layer - 1] if layer else 1):
                found[layer] = tuple(below_S[stream] for stream in self.stream_of_row(layer))
        return found


@lru_cache(maxsize=64)
def stream_tree(streams: tuple[HeadSet, ...], *, n_layers: int, share_trunk: bool = True) -> StreamTree:
    """The tree of the streams' rows; without a shared trunk distinct streams are rows of their own in every layer."""
    return StreamTree(tuple(_rows_S(streams, layer if share_trunk else n_layers) for layer in range(n_layers)))


def _rows_S(streams: Sequence[HeadSet], up_to: int) -> tuple[int, ...]:
    prefixes = [frozenset(head for head in heads if head.layer <= up_to) for heads in streams]
    row_of = {prefix: row for row, prefix in enumerate(dict.fromkeys(prefixes))}
    return tuple(row_of[prefix] for prefix in prefixes)
