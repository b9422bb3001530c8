"""What a new selection changed against the one before it, as metadata of `selected_subset`."""

from functools import partial
from typing import Any

import dagster as dg

from attninf_assets.corpus.stored_index import indexed_from
from attninf_assets.orchestration.connections.resources import CorpusResource
from attninf_assets.orchestration.display.metadata import records, rounded
from attninf_assets.orchestration.display.text import quoted
from attninf_assets.selection.comparison import DomainComparison, compare
from attninf_assets.selection.definitions import PAPER
from attninf_assets.selection.documents_to_read import beginnings
from attninf_assets.selection.references import selection_at
from attninf_assets.store.tables import Lake

__all__ = ["what_changed"]

_MOST_SHOWN = 3  # documents of a domain that entered, and that left


def what_changed(
    tables: Lake, corpus: CorpusResource, *, before: int | None, after: int, selection: str = PAPER
) -> dict[str, Any]:
    """Overlap, rank correlation, and what entered and left, by domain, between two versions of `selected_subset`.

    Empty where there was none `before`. Where it cannot be read any more the metadata says so, and nothing fails: the
    new selection is stored already.
    """
    if before is None:
        return {}
    try:
        old, new = (selection_at(tables, selection, version) for version in (before, after))
        found = compare(old, new, top=_MOST_SHOWN)
    except (ValueError, OSError) as error:
        return {"changed": f"not compared with version {before}: {' '.join(str(error).split())}"}
    selectors = "the same selector" if old.selector_fingerprint == new.selector_fingerprint else "another selector"
    told: dict[str, Any] = {
        "changed": records([_row(one) for one in found]),
        "changed_since": f"version {before}, by {selectors}, {old.selector_fingerprint[:12]}",
    }
    examples = [*_examples(found, tables, corpus)]
    return told | ({"examples_of_change": dg.MetadataValue.md(quoted("\n".join(examples)))} if examples else {})


def _row(one: DomainComparison) -> dict[str, Any]:
    return {
        "domain": one.domain,
        "documents_before": one.documents_before,
        "documents": one.documents_after,
        "entered": one.n_entered,
        "left": one.n_left,
        "jaccard_documents": rounded(one.jaccard_documents),
        "jaccard_tokens": rounded(one.jaccard_tokens),
        "spearman": "-" if one.spearman is None else str(rounded(one.spearman)),
        "correlated": one.n_correlated,
    }


def _examples(found: list[DomainComparison], tables: Lake, corpus: CorpusResource) -> list[str]:
    """A line for each document, those that moved most first."""
    moved = [
        (what, document)
        for one in found
        for what, documents in (("entered", one.entered), ("left", one.left))
        for document in documents
    ]
    if not moved:
        return []
    try:
        sources = corpus.open()
    except (ValueError, OSError):
        texts: dict[tuple[str, str], str] = {}
    else:
        texts = beginnings(
            tables,
            [document for _, document in moved],
            lambda key: sources.find(key, indexed_from=partial(indexed_from, tables)).shard,
            storage_options=sources.storage_options,
        )
    return [
        f"{one.domain} {what}, rank {one.rank:,} of {one.selected:,}, score {one.score:.4f}, {one.doc_id}: "
        f"{texts.get((one.domain, one.doc_id), '[the corpus cannot be opened]')}"
        for what, one in moved
    ]
