"""Selections that are, were or would be, as tables for a terminal."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from attninf_assets.corpus.printable import printable
from attninf_assets.selection.what_if import WhatIf

__all__ = ["what_if_tables"]


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
