"""The pictures in asset metadata: small PNGs inside Markdown, drawn without any global plotting state."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from attninf_assets.influence.model.head import Head

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_MOST_ROWS, _MOST_DOTS = 10, 3_000  # domains, and documents of each, in a picture of dots
_BLUE, _ORANGE, _GREY = "#3b6ea8", "#d9822b", "#b8bec6"
# Colour and hatch of a state: neither alone tells any two apart that are easily taken for each other.
_STATES = {
    "current": (_BLUE, ""),
    "running": ("#4f9d69", "||||"),
    "stale": (_ORANGE, "////"),
    "missing": ("#d8dce2", ""),
    "failed": ("#b03a3a", "xxxx"),
    "not indexed": ("#f4f5f7", "...."),
    "source gone": ("#5b5f66", "----"),
}
_PALETTE = [_BLUE, _ORANGE, "#4f9d69", "#b03a3a", "#7d5ba6", "#8a6d3b", "#d4719c", "#5b5f66", "#a8b13b", "#3fa7b5"]


_READABLE = 0.06  # of the longest bar: the narrowest part that a number fits into


def head_heat_map(scores_LH: np.ndarray, retrieval_heads: Sequence[Head]) -> dg.MarkdownMetadataValue:
    """Retrieval score of every head, layers across and heads down; the retrieval heads are framed."""
    from matplotlib.patches import Rectangle

    n_layers, n_heads = scores_LH.shape
    figure = _figure(max(5.0, 0.26 * n_layers + 1.2), max(2.2, 0.26 * n_heads + 1.1))
    axes = figure.subplots()
    image = axes.imshow(scores_LH.T, cmap="Blues", vmin=0, vmax=max(float(scores_LH.max()), 1e-9), aspect="equal")
    for head in retrieval_heads:  # a cell is one wide, around its numbers
        axes.add_patch(
            Rectangle((head.layer - 0.5, head.index - 0.5), 1, 1, fill=False, edgecolor=_ORANGE, linewidth=2.0)
        )
    axes.set(
        xlabel="layer",
        ylabel="head",
        title=f"retrieval score of {n_layers} x {n_heads} heads; framed: the {len(retrieval_heads)} retrieval heads",
    )
    _integer_ticks(axes.xaxis)
    axes.set_yticks(range(n_heads))
    figure.colorbar(image, ax=axes, shrink=0.8)
    return _markdown(figure, "retrieval score of every head")


def answer_loss_bars(losses: Mapping[str, float]) -> dg.MarkdownMetadataValue:
    """Answer loss on the probes: base model, reference model, random sets."""
    figure = _figure(5.5, 0.32 * len(losses) + 0.9)
    axes = figure.subplots()
    names = list(losses)
    colours = [_ORANGE if name == "retrieval heads masked" else _GREY for name in names]
    bars = axes.barh(names[::-1], [losses[name] for name in names][::-1], color=colours[::-1])
    axes.bar_label(bars, fmt="{:.2f}", padding=3, fontsize=8)
    axes.margins(x=0.12)
    axes.set(xlabel="answer loss on the probes, nats per token")
    return _markdown(figure, "answer loss under each mask")


def score_histogram(scores: np.ndarray, *, tokens: int, cut: float | None = None) -> dg.MarkdownMetadataValue:
    """Distribution of attention influence scores; the 1 % tails are gathered at the edges.

    `cut`: the domain's threshold, where there is one; what it keeps has another colour and hatches.
    """
    figure = _figure(5.5, 2.6)
    axes = figure.subplots()
    _histogram(axes, scores, edges=_bin_edges(scores, through=cut), cut=cut)
    kept = "" if cut is None else f"; hatched: kept by the last threshold, {cut:.4f}"
    axes.set_xlabel(f"attention influence score{kept}")
    axes.set_title(f"{len(scores):,} documents, {tokens:,} tokens", fontsize=9, loc="left")
    return _markdown(figure, "histogram of attention influence scores")


def score_distributions(
    scores_by_domain: Mapping[str, np.ndarray], thresholds: Sequence[Mapping[str, Any]]
) -> dg.MarkdownMetadataValue:
    """One histogram per domain, on one scale, what is selected in another colour than the rest.

    `thresholds` are rows of the table of that name. The cut is a bin's edge, so that no bar is of both kinds.
    """
    figure = _figure(6.0, 1.9 * len(thresholds) + 0.3)
    everything = np.concatenate([np.empty(0), *scores_by_domain.values()])
    panels = figure.subplots(len(thresholds), squeeze=False, sharex=True)[:, 0]
    for axes, row in zip(panels, sorted(thresholds, key=lambda row: row["domain"]), strict=True):
        cut = row["threshold_score"]
        _histogram(axes, scores_by_domain[row["domain"]], edges=_bin_edges(everything, through=cut), cut=cut)
        axes.set_title(
            f"{row['domain']}: {row['n_selected']:,} of {row['n_documents']:,} documents, "
            f"{row['tokens_selected']:,} of {row['tokens_total']:,} tokens, from {cut:.4f}",
            fontsize=9,
            loc="left",
        )
    panels[-1].set_xlabel("attention influence score; orange and hatched is selected")
    return _markdown(figure, "attention influence scores per domain with the score threshold")


def scores_against(
    domains: Mapping[str, Mapping[str, np.ndarray]], features: Mapping[str, str]
) -> dg.MarkdownMetadataValue:
    """Score against each of the features, a row of panels for each domain, with the median of every tenth of them.

    `domains` hold `score` and the features, [N] each; `features` are their names and what the axes say. Of a domain
    with very many documents some thousands are a dot each; the medians are of all. No more than ten
    domains are shown.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    shown = dict(sorted(domains.items())[:_MOST_ROWS])
    figure = _figure(3.4 * len(features) + 0.4, 2.1 * len(shown) + 0.3)
    rows = figure.subplots(len(shown), len(features), squeeze=False, sharex="col")
    for panels, (domain, columns) in zip(rows, shown.items(), strict=True):
        scores = np.asarray(columns["score"], dtype=float)
        low, high = np.quantile(scores, [0.005, 0.995])
        margin = 0.05 * max(high - low, 1e-9)
        for axes, feature in zip(panels, features, strict=True):
            values = np.asarray(columns[feature], dtype=float)
            step = max(1, len(values) // _MOST_DOTS)
            alpha = 0.8 if len(values) < _MOST_DOTS / 10 else 0.35
            axes.scatter(values[::step], scores[::step], s=8, alpha=alpha, color=_BLUE, linewidths=0)
            axes.plot(*_medians(values, scores), color=_ORANGE, marker="o", markersize=3, linewidth=1.4)
            axes.set_ylim(low - margin, high + margin)
            if feature == "n_tokens":
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_major_formatter("{x:,.0f}")
                axes.xaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel("score")
        panels[0].set_title(f"{domain}: {len(scores):,} documents", fontsize=9, loc="left")
    for axes, label in zip(rows[-1], features.values(), strict=True):
        axes.set_xlabel(label)
    return _markdown(figure, "attention influence score against " + " and ".join(features.values()))


def _medians(values: np.ndarray, scores: np.ndarray) -> tuple[list[float], list[float]]:
    """The medians of both in each tenth of the documents by the first; those that are equal in it stay together."""
    edges = np.unique(np.quantile(values, np.arange(1, 10) / 10))
    tenth = np.searchsorted(edges, values, side="left")
    inside = [tenth == one for one in np.unique(tenth)]
    return [float(np.median(values[one])) for one in inside], [float(np.median(scores[one])) for one in inside]


def coverage_bars(shards: Mapping[str, Mapping[str, int]]) -> dg.MarkdownMetadataValue:
    """Shards of each domain by state, as stacked bars on one scale.

    States differ in colour and hatch, and every count is written: in its part of the bar, or where that is too narrow
    below the bar, with its state.
    """
    figure = _figure(6.5, 0.6 * len(shards) + 1.3)
    axes = figure.subplots()
    domains = sorted(shards, reverse=True)
    longest = max((sum(counts.values()) for counts in shards.values()), default=0)
    left, narrow = np.zeros(len(domains)), dict[str, list[str]]()
    for state in dict.fromkeys(state for counts in shards.values() for state in counts):
        counts = np.array([shards[domain][state] for domain in domains])
        if counts.any():
            colour, hatch = _STATES[state]
            bars = axes.barh(
                domains,
                counts,
                0.6,
                left=left,
                color=colour,
                hatch=hatch,
                label=state,
                edgecolor="#3d4148",
                linewidth=0.6,
            )
            for domain, bar, count in zip(domains, bars, counts, strict=True):
                if count >= _READABLE * longest:
                    around = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
                    centre = (bar.get_x() + bar.get_width() / 2, bar.get_y() + bar.get_height() / 2)
                    axes.annotate(f"{count:,}", centre, ha="center", va="center", fontsize=8, bbox=around)
                elif count:
                    narrow.setdefault(domain, []).append(f"{count:,} {state}")
        left = left + counts
    for place, domain in enumerate(domains):
        if domain in narrow:
            axes.annotate(", ".join(narrow[domain]), (0, place - 0.33), fontsize=7, va="top")
    axes.set(xlabel="shards", xlim=(0, longest * 1.03 or 1), ylim=(-0.65, len(domains) - 0.6))
    _integer_ticks(axes.xaxis)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if longest:
        figure.legend(loc="outside upper center", ncols=4, fontsize=8, frameon=False)
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
    _integer_ticks(below.xaxis)
    figure.legend(loc="outside upper center", ncols=5, fontsize=8, frameon=False)
    return _markdown(figure, "throughput and cost of every scored shard")


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _bin_edges(scores: np.ndarray, *, through: float | None = None) -> np.ndarray:
    """Edges of equal bins over all but the 1 % tails, moved so that one is at `through`."""
    finite = scores[np.isfinite(scores)]
    within = [*(np.quantile(finite, [0.01, 0.99]) if len(finite) else ()), *(() if through is None else (through,))]
    low, high = (min(within), max(within)) if within else (0.0, 1.0)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):  # all alike
        low, high = low - 0.5, high + 0.5
    n_bins = min(40, max(5, len(finite) // 4))
    width = (high - low) / n_bins
    if through is None:
        return low + width * np.arange(n_bins + 1)
    below, above = np.ceil((through - low) / width), np.ceil((high - through) / width)
    return through + width * np.arange(-max(below, 1), max(above, 1) + 1)


def _histogram(axes: Axes, scores: np.ndarray, *, edges: np.ndarray, cut: float | None = None) -> None:
    finite = scores[np.isfinite(scores)].clip(edges[0], edges[-1])
    counts, _ = np.histogram(finite, edges)
    kept = np.zeros(len(counts), bool) if cut is None else edges[:-1] >= cut
    bars = axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=np.where(kept, _ORANGE, _BLUE))
    for bar, is_kept in zip(bars, kept, strict=True):
        bar.set(hatch="////" if is_kept else None, edgecolor="white", linewidth=0.0)
    axes.set_ylabel("documents")
    _integer_ticks(axes.yaxis)


def _integer_ticks(axis: Axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def _markdown(figure: Figure, alternative: str) -> dg.MarkdownMetadataValue:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=80)
    return dg.MetadataValue.md(f"![{alternative}](data:image/png;base64,{base64.b64encode(png.getvalue()).decode()})")
