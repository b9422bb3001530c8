"""Recording of the positions that some heads attend to most, during a forward pass.

Shapes: S streams, H query heads of the layer, K key/value heads, T tokens of the row, D head dimension, X recorded
heads of the layer, Q query rows of a block, L positions that the block may see, N positions kept for each row.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from attninf_assets.influence.model.head import Head
from attninf_assets.influence.model.kernels import Logits, attention_weights

_QUERY_BLOCK = 256  # rows whose weights are held at once


@dataclass(frozen=True)
class Attended:
    """The positions of the row that a head attends to most from each position, most first, with their weights.

    Where a position sees fewer than N, the weights left over are 0.
    """

    positions_TN: torch.Tensor  # int64, on the CPU
    weights_TN: torch.Tensor  # float32, on the CPU


class AttendedPositions:
    """Keeps, for each of `heads`, the `n` positions that the first stream attends to most from every position.

    For rows of a single window. Holds (heads of a layer, 256, T) weights at most, never T × T.
    """

    def __init__(self, heads: Iterable[Head], *, n: int) -> None:
        self.of: dict[Head, Attended] = {}
        self._n = n
        self._indices: dict[int, list[int]] = defaultdict(list)
        for head in sorted(heads):
            self._indices[head.layer].append(head.index)

    def __call__(self, layer: int, query_SHTD: torch.Tensor, key_SKTD: torch.Tensor, logits: Logits) -> None:
        if layer not in self._indices:
            return
        indices = self._indices[layer]
        shared_by = query_SHTD.shape[1] // key_SKTD.shape[1]
        q_1XTD = query_SHTD[:1, indices].float()
        k_1XTD = key_SKTD[:1, [index // shared_by for index in indices]].float()
        if logits.sinks_H is not None:
            logits = replace(logits, sinks_H=logits.sinks_H[indices])
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        for row in range(0, q_1XTD.shape[2], _QUERY_BLOCK):
            first = 0 if logits.window is None else max(0, row - logits.window + 1)
            end = min(row + _QUERY_BLOCK, q_1XTD.shape[2])
            weights_XQL = attention_weights(q_1XTD[:, :, row:end], k_1XTD[:, :, first:end], logits)[0]
            found.append(_most(weights_XQL, n=self._n, first=first))
        weights_XTN, positions_XTN = (torch.cat(parts, dim=1).cpu() for parts in zip(*found, strict=True))
        for number, index in enumerate(indices):
            self.of[Head(layer, index)] = Attended(positions_XTN[number], weights_XTN[number])


def _most(weights_XQL: torch.Tensor, *, n: int, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `n` largest weights [X, Q, N] and their positions, `first` being that of the first weight."""
    most = weights_XQL.topk(min(n, weights_XQL.shape[-1]), dim=-1)
    missing = (0, n - most.values.shape[-1])
    return torch.nn.functional.pad(most.values, missing), torch.nn.functional.pad(most.indices + first, missing)
