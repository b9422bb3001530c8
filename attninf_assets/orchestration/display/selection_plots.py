"""The pictures of selections that would be, and of bands: a row of panels for each domain.

Scores are comparable inside a domain alone, so their axes are each domain's own; shares and lengths have one scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import dagster as dg

from attninf_assets.orchestration.display.plots import _BLUE, _GREY, _ORANGE, _PALETTE, _figure, _markdown
from attninf_assets.selection.what_if import WhatIf

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["band_bars", "what_if_curves"]

_ROW_HEIGHT, _TOP = 2.3, 0.7  # inches
# A line is told from another by its marker and dashes, too.
_LINES = [("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."), ("v", (0, (5, 1))), ("x", (0, (1, 1)))]
_BY = {"documents": (_BLUE, "o", "-"), "tokens": (_ORANGE, "s", "--")}


def what_if_curves(rows: Sequence[WhatIf]) -> dg.MarkdownMetadataValue:
    """For each domain: threshold, share of tokens or documents, and Jaccard with each selection, over the fraction."""
    domains = sorted({row.domain for row in rows})
    names = sorted({overlap.selection for row in rows for overlap in row.overlaps})
    figure, panels = _panels(len(domains), columns=3 if names else 2)
    handles: dict[str, Any] = {}
    for domain, of_domain in zip(domains, panels, strict=True):
        for budget, (colour, marker, dashes) in _BY.items():
            ours = [row for row in rows if (row.domain, row.budget) == (domain, budget)]
            at = [row.fraction for row in ours]
            style: dict[str, Any] = {
                "color": colour,
                "marker": marker,
                "linestyle": dashes,
                "markersize": 4,
                "linewidth": 1.3,
            }
            (line,) = of_domain[0].plot(at, [row.threshold_score for row in ours], **style)
            handles[f"fraction of {budget}"] = line
            of_other = [
                row.tokens / row.tokens_total if budget == "documents" else row.documents / row.n_documents
                for row in ours
            ]
            of_domain[1].plot(at, of_other, **style)
        _jaccard(of_domain, [row for row in rows if (row.domain, row.budget) == (domain, "documents")], names, handles)
        _title(of_domain[0], domain)
        of_domain[1].plot([0, 1], [0, 1], color=_GREY, linewidth=1, zorder=0)
        of_domain[0].set_ylabel("threshold score", fontsize=8)
        of_domain[1].set_ylabel("share of tokens (●)\nor documents (■) kept", fontsize=8)
        for axes in of_domain:
            axes.set_xlim(0, 1.05 * max(row.fraction for row in rows))
        for axes in of_domain[1:]:
            axes.set_ylim(0, 1.05)
    for axes in panels[-1]:
        axes.set_xlabel("fraction kept", fontsize=8)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return _markdown(figure, "what would be selected at other fractions, for each domain")


def _jaccard(panels: Sequence[Axes], rows: Sequence[WhatIf], names: Sequence[str], handles: dict[str, Any]) -> None:
    if not names:
        return
    panels[2].set_ylabel("Jaccard, by documents", fontsize=8)
    for number, (name, (marker, dashes)) in enumerate(zip(names, cycle(_LINES))):
        colour = _PALETTE[(number + 2) % len(_PALETTE)]
        found = {row.fraction: one.jaccard for row in rows for one in row.overlaps if one.selection == name}
        (line,) = panels[2].plot(
            list(found),
            list(found.values()),
            color=colour,
            marker=marker,
            linestyle=dashes,
            markersize=4,
            linewidth=1.3,
        )
        handles[f"Jaccard with {name}"] = line


def band_bars(rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """For each domain and over its bands, the best first: the range of scores, the losses, the mean length."""
    domains = sorted({row["domain"] for row in rows})
    figure, panels = _panels(len(domains), columns=3)
    handles: dict[str, Any] = {}
    for domain, of_domain in zip(domains, panels, strict=True):
        bands = [row for row in rows if row["domain"] == domain and row["n_documents"]]
        ends = [int(row["band"].split("-")[1]) for row in bands]
        centres = [end - 2.5 for end in ends]
        ranges, losses, lengths = of_domain
        low = [row["lowest_score"] for row in bands]
        ranges.bar(centres, [row["highest_score"] - row["lowest_score"] for row in bands], 4.2, bottom=low, color=_BLUE)
        ranges.plot(centres, low, color=_BLUE, marker="_", linestyle="", markersize=6)  # where the range is a point
        for name, (marker, dashes), colour in zip(("base", "reference"), _LINES, (_BLUE, _ORANGE), strict=False):
            (handles[f"{name} model"],) = losses.plot(
                centres,
                [row[f"mean_loss_{name}"] for row in bands],
                color=colour, marker=marker, linestyle=dashes, markersize=4, linewidth=1.3,
            )  # fmt: skip
        lengths.bar(centres, [row["mean_tokens"] for row in bands], 4.2, color=_GREY)
        _title(ranges, domain)
        for axes, label in zip(of_domain, ("score, lowest to highest", "mean loss, nats", "mean tokens"), strict=True):
            axes.set_ylabel(label, fontsize=8)
            axes.set_xlim(0, 100)
    longest = max((row["mean_tokens"] or 0 for row in rows), default=1)
    for of_domain in panels:
        of_domain[2].set_ylim(0, 1.05 * longest)
    for axes in panels[-1]:
        axes.set_xlabel("% of the domain's tokens, best scores first", fontsize=8)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=2, fontsize=8, frameon=False)
    return _markdown(figure, "bands of equal tokens, for each domain")


def _panels(rows: int, *, columns: int) -> tuple[Figure, list[list[Axes]]]:
    figure = _figure(3.3 * columns, _ROW_HEIGHT * rows + _TOP)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3, linewidth=0.6)
    return figure, [list(of_row) for of_row in panels]


def _title(axes: Axes, domain: str) -> None:
    axes.set_title(domain, fontsize=9, loc="left", fontweight="bold")
