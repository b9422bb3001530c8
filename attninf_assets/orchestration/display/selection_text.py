"""Selections that are, were or would be, as tables for a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from attninf_assets.corpus.printable import printable
from attninf_assets.selection.comparison import DomainComparison, Moved
from attninf_assets.selection.what_if import WhatIf

__all__ = ["bands_tables", "comparison_tables", "what_if_tables"]


def what_if_tables(rows: Sequence[WhatIf]) -> str:
    """A table for each domain and budget, a line for each fraction."""
    parts = []
    for (domain, budget), group in groupby(rows, key=lambda row: (row.domain, row.budget)):
        of_both = list(group)
        first = of_both[0]
        parts.append(
            f"{printable(domain)}, fractions of {budget}: {first.n_documents:,} documents and {first.tokens_total:,} "
            "tokens have a score"
        )
        names = [overlap.selection for overlap in first.overlaps]
        titles = ["fraction", "documents", "tokens", "of tokens", "threshold", "mean tokens", "repetition"]
        titles += [title for name in names for title in (f"in {name}", "Jaccard")]
        parts.append(aligned([titles, *(_cells(row) for row in of_both)]))
    return "\n\n".join(parts)


def _cells(row: WhatIf) -> list[str]:
    return [
        f"{row.fraction:.4g}",
        f"{row.documents:,}",
        f"{row.tokens:,}",
        f"{row.tokens / row.tokens_total:.1%}",
        f"{row.threshold_score:.4f}",
        f"{row.mean_tokens:,.1f}",
        shown(row.mean_repetition),
        *(cell for one in row.overlaps for cell in (f"{one.share:.1%}", f"{one.jaccard:.3f}")),
    ]


def bands_tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for each domain, a line for each of its rows of `score_bands`."""
    titles = [
        "band %",
        "documents",
        "tokens",
        "highest",
        "lowest",
        "loss base",
        "reference",
        "mean tokens",
        "repetition",
    ]
    figures = [
        "highest_score",
        "lowest_score",
        "mean_loss_base",
        "mean_loss_reference",
        "mean_tokens",
        "mean_repetition",
    ]
    parts = []
    for domain, bands in groupby(rows, key=lambda row: row["domain"]):
        cells = [
            [row["band"], f"{row['n_documents']:,}", f"{row['n_tokens']:,}", *(shown(row[name]) for name in figures)]
            for row in bands
        ]
        parts.append(f"{printable(domain)}\n{aligned([titles, *cells])}")
    return "\n\n".join(parts)


def comparison_tables(found: Sequence[DomainComparison], excerpts: Mapping[tuple[str, str], str]) -> str:
    """A table of the domains, and a line for each document that is named as having entered or left."""
    titles = ["domain", "A", "B", "in both", "Jaccard", "of tokens", "Spearman", "of", "entered", "left"]
    cells = [
        [
            one.domain,
            f"{one.documents_before:,}",
            f"{one.documents_after:,}",
            f"{one.documents_common:,}",
            f"{one.jaccard_documents:.3f}",
            f"{one.jaccard_tokens:.3f}",
            shown(one.spearman),
            f"{one.n_correlated:,}",
            f"{one.n_entered:,}",
            f"{one.n_left:,}",
        ]
        for one in found
    ]
    parts = [aligned([titles, *cells])]
    for one in found:
        for what, side, moved, n in (
            ("entered", "B", one.entered, one.n_entered),
            ("left", "A", one.left, one.n_left),
        ):
            if moved:
                lines = [f"  {_moved(document, excerpts)}" for document in moved]
                head = f"{printable(one.domain)}: {len(moved):,} of {n:,} that {what}, by their rank in {side}"
                parts.append("\n".join([head, *lines]))
    return "\n\n".join(parts)


def _moved(one: Moved, excerpts: Mapping[tuple[str, str], str]) -> str:
    text = excerpts.get((one.domain, one.doc_id), "")
    return f"rank {one.rank:,} of {one.selected:,}, score {one.score:.4f}, {printable(one.doc_id)}: {text}"


def shown(value: float | None) -> str:
    """The number with three decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Lines of right-aligned columns, the first one left-aligned."""
    table = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
