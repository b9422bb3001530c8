"""Documents to read in the UI: a heading for each part of the ranking, and each document in a block of its own."""

from collections.abc import Iterable
from itertools import groupby

import dagster as dg

from attninf_assets.corpus.printable import shortened
from attninf_assets.orchestration.display.text import quoted
from attninf_assets.selection.documents_to_read import Excerpt

__all__ = ["excerpts_markdown"]


def excerpts_markdown(excerpts: Iterable[Excerpt]) -> dg.MarkdownMetadataValue:
    """The excerpts in their order; of what stands in a document, its id or its source's name, nothing is markup."""
    parts: list[str] = []
    for place, group in groupby(excerpts, key=lambda one: one.place):
        parts += [f"#### {place}", *map(_block, group)]
    return dg.MetadataValue.md("\n\n".join(parts) or "no document has a score")


def _block(one: Excerpt) -> str:
    told = [f"rank {one.rank:,}", f"score {one.score:.4f}", f"{one.n_tokens:,} tokens"]
    told += [f"{name} {value:.3g}" for name, value in (one.features or {}).items()]
    lines = [" · ".join(told), f"{one.domain}.{one.shard} · {shortened(one.doc_id)}"]
    if one.problem is not None:
        lines.append(f"! {shortened(one.problem)}")
    if one.begins is not None:
        more = "" if one.n_characters == len(one.begins) else f" … ({one.n_characters:,} characters)"
        lines += ["", one.begins + more]
    return quoted("\n".join(lines))
