"""The pictures in asset metadata: small PNGs inside Markdown, drawn without any global plotting state."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np

from attninf_assets.influence.model.head import Head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#3b6ea8", "#d9822b", "#b8bec6"
_PALETTE = [_BLUE, _ORANGE, "#4f9d69", "#b03a3a", "#7d5ba6", "#8a6d3b", "#d4719c", "#5b5f66", "#a8b13b", "#3fa7b5"]


def head_heat_map(scores_LH: np.ndarray, retrieval_heads: Sequence[Head]) -> dg.MarkdownMetadataValue:
    """Retrieval score of every head, layers across and heads down; the retrieval heads are framed."""
    n_layers, n_heads = scores_LH.shape
    figure = _figure(max(5.0, 0.26 * n_layers + 1.2), max(2.2, 0.26 * n_heads + 1.1))
    axes = figure.subplots()
    image = axes.imshow(scores_LH.T, cmap="Blues", vmin=0, vmax=max(float(scores_LH.max()), 1e-9), aspect="equal")
    retrieval = np.array([[head.layer, head.index] for head in retrieval_heads])
    axes.scatter(
        retrieval[:, 0], retrieval[:, 1], s=70, marker="s", facecolors="none", edgecolors=_ORANGE, linewidths=1.4
    )
    axes.set(
        xlabel="layer", ylabel="head", title=f"retrieval score; framed: the {len(retrieval_heads)} retrieval heads"
    )
    axes.set_yticks(range(n_heads))
    figure.colorbar(image, ax=axes, shrink=0.8)
    return _markdown(figure, "retrieval score of every head")


def answer_loss_bars(losses: Mapping[str, float]) -> dg.MarkdownMetadataValue:
    """Answer loss on the probes: base model, reference model, random sets."""
    figure = _figure(5.5, 0.32 * len(losses) + 0.9)
    axes = figure.subplots()
    names = list(losses)
    colours = [_ORANGE if name == "retrieval heads masked" else _GREY for name in names]
    axes.barh(names[::-1], [losses[name] for name in names][::-1], color=colours[::-1])
    axes.set(xlabel="answer loss on the probes, nats per token")
    return _markdown(figure, "answer loss under each mask")


def score_histogram(scores: np.ndarray) -> dg.MarkdownMetadataValue:
    """Distribution of attention influence scores; the 1 % tails are gathered at the edges."""
    figure = _figure(5.5, 2.6)
    _histogram(figure.subplots(), scores)
    return _markdown(figure, "histogram of attention influence scores")


def score_distributions(
    scores_by_domain: Mapping[str, np.ndarray], thresholds: Mapping[str, float]
) -> dg.MarkdownMetadataValue:
    """One histogram per domain with its score threshold; selected is what lies right of the line."""
    figure = _figure(6.0, 1.7 * len(scores_by_domain))
    for axes, (domain, scores) in zip(
        figure.subplots(len(scores_by_domain), squeeze=False)[:, 0], sorted(scores_by_domain.items()), strict=True
    ):
        _histogram(axes, scores)
        axes.axvline(thresholds[domain], color=_ORANGE, linewidth=1.8)
        axes.set_title(f"{domain}: threshold {thresholds[domain]:.4f}", fontsize=9, loc="left")
    return _markdown(figure, "attention influence scores per domain with the score threshold")


def coverage_bars(shards: Mapping[str, Mapping[str, int]]) -> dg.MarkdownMetadataValue:
    """Shards of each domain by state, as stacked bars."""
    colours = [_BLUE, _ORANGE, _GREY, "#b03a3a", "#d8dce2", "#5b5f66"]
    figure = _figure(6.0, 0.4 * len(shards) + 1.2)
    axes = figure.subplots()
    domains = sorted(shards, reverse=True)
    left = np.zeros(len(domains))
    for state, colour in zip(dict.fromkeys(s for counts in shards.values() for s in counts), colours, strict=False):
        counts = np.array([shards[domain][state] for domain in domains])
        if counts.any():
            axes.barh(domains, counts, left=left, color=colour, label=state)
        left = left + counts
    axes.set(xlabel="shards")
    if shards:
        figure.legend(loc="outside upper center", ncols=6, fontsize=8, frameon=False)
    return _markdown(figure, "shards of each domain by the state of their scores")


def throughput_and_cost(
    domains: Sequence[str], tokens: np.ndarray, seconds: np.ndarray, *, price_per_device_hour: float
) -> dg.MarkdownMetadataValue:
    """What each scoring of a shard ran at, and what they cost together, one after the other.

    A dot is one shard's update: its tokens a second, coloured by domain, with the rate of all together as a line.
    Below, the sum of money, or of device-hours where these have no price.
    """
    figure = _figure(6.5, 4.4)
    above, below = figure.subplots(2, 1, sharex=True)
    order = np.arange(1, len(domains) + 1)
    for number, domain in enumerate(sorted(set(domains))):
        ours = np.array([one == domain for one in domains])
        above.scatter(order[ours], (tokens / seconds)[ours], s=14, color=_PALETTE[number % len(_PALETTE)], label=domain)
    together = tokens.sum() / seconds.sum()
    fastest = float((tokens / seconds).max())
    above.axhline(together, color=_GREY, linewidth=1.4, zorder=0)
    above.set(ylabel="tokens per second", title=f"{together:,.0f} tokens per second over all", ylim=(0, 1.1 * fastest))
    above.yaxis.set_major_formatter("{x:,.0f}")
    hours = seconds.cumsum() / 3600
    below.plot([0, *order], [0, *hours * (price_per_device_hour or 1.0)], color=_BLUE)
    what = "money" if price_per_device_hour else "device-hours"
    below.set(xlabel="scored shards, in the order of their commits", ylabel=f"{what} so far", ylim=(0, None))
    below.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside upper center", ncols=5, fontsize=8, frameon=False)
    return _markdown(figure, "throughput and cost of every scored shard")


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _histogram(axes: Axes, scores: np.ndarray) -> None:
    finite = scores[np.isfinite(scores)]
    if len(finite):
        low, high = np.quantile(finite, [0.01, 0.99])
        axes.hist(finite.clip(low, high), bins=min(40, max(5, len(finite) // 4)), color=_BLUE)
    axes.set(xlabel="attention influence score", ylabel="documents")


def _markdown(figure: Figure, alternative: str) -> dg.MarkdownMetadataValue:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80)
    return dg.MetadataValue.md(f"![{alternative}](data:image/png;base64,{base64.b64encode(png.getvalue()).decode()})")
