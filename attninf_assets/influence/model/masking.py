"""Masks of query heads, and the running mean that a masked head outputs.

Shapes: S streams (one model variant each), H query heads, K key/value heads, T tokens, D head dimension.
"""

import torch

from attninf_assets.influence.model.head import Head, HeadSet


def head_mask_SH(streams: list[HeadSet], *, layer: int, n_heads: int, device: torch.device) -> torch.Tensor | None:
    """A boolean mask [S, H]: True where the stream masks that head of the layer. None where no stream masks any."""
    rows = [[Head(layer, index) in heads for index in range(n_heads)] for heads in streams]
    if not any(map(any, rows)):
        return None
    return torch.tensor(rows, dtype=torch.bool, device=device)


def running_mean_of_values(value_SKTD: torch.Tensor, *, window: int | None) -> torch.Tensor:
    """The mean of the value vectors over each position's causal prefix, which is what uniform attention outputs.

    It has the shape of `value_SKTD` and is summed in float32. `window` limits the prefix to the last `window`
    positions, the query's own included.
    """
    sums_SKTD = value_SKTD.float().cumsum(dim=2)
    counts_T = torch.arange(1, value_SKTD.shape[2] + 1, device=value_SKTD.device, dtype=torch.float32)
    if window is not None and window < value_SKTD.shape[2]:
        sums_SKTD = torch.cat([sums_SKTD[:, :, :window], sums_SKTD[:, :, window:] - sums_SKTD[:, :, :-window]], dim=2)
        counts_T = counts_T.clamp(max=window)
    return (sums_SKTD / counts_T[:, None]).to(value_SKTD.dtype)
