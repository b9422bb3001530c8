"""Documents to read beside the numbers: of a selection by domain, and of a shard's scores."""

from functools import partial
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from attninf_assets.corpus.discovery import Corpus
from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.stored_index import indexed_from
from attninf_assets.orchestration.display.excerpts import excerpts_markdown
from attninf_assets.selection.documents_to_read import around, middle, selection_of, with_texts
from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake

__all__ = ["selection_to_read", "shard_to_read"]

_PER_PART = 10  # documents at the top, around the cut, at the bottom
_PER_SELECTION = 1_000  # documents in all; metadata is kept with every event
_PER_SHARD = 5
_SECONDS_PER_SHARD = 10.0


def selection_to_read(
    lake: Lake, sources: Corpus, selection: str, *, selector_fingerprint: str
) -> dict[str, dg.MarkdownMetadataValue]:
    """Metadata `read_<selection>_<domain>` for each domain that the selection has a threshold in.

    That is its highest documents, those around the cut, and its lowest; of many domains fewer documents each.
    """
    cuts = {
        row["domain"]: (row["threshold_score"], row["threshold_doc_id"])
        for row in lake.read("thresholds", only=pc.field("selector_fingerprint") == selector_fingerprint).to_pylist()
        if selection_of(row) == selection
    }
    n = max(2, min(_PER_PART, _PER_SELECTION // max(1, 3 * len(cuts))))
    chosen = []
    for domain, cut in sorted(cuts.items()):
        with connect(lake, "scores", where={"domain": domain}) as connection:
            chosen += around(connection, domain, cut, selector_fingerprint=selector_fingerprint, n=n)
    read = with_texts(
        lake,
        chosen,
        lambda key: sources.find(key, indexed_from=partial(indexed_from, lake)).shard,
        storage_options=sources.storage_options,
    )
    return {
        f"read_{selection}_{domain}": excerpts_markdown(one for one in read if one.domain == domain)
        for domain in sorted(cuts)
    }


def shard_to_read(lake: Lake, shard: Shard, sources: Corpus, *, selector_fingerprint: str) -> dg.MarkdownMetadataValue:
    """The shard's highest documents, those around the domain's threshold or else in the middle, and its lowest."""
    where = {"domain": shard.domain, "shard": shard.name}
    of_domain = pc.field("domain") == shard.domain
    by_selector = pc.field("selector_fingerprint") == selector_fingerprint
    thresholds = sorted(lake.read("thresholds", only=of_domain & by_selector).to_pylist(), key=_paper_first)
    with connect(lake, "scores", where=where) as connection:
        cut: tuple[float, str] | None
        if thresholds:
            cut, what = (thresholds[0]["threshold_score"], thresholds[0]["threshold_doc_id"]), "cut"
        else:
            cut, what = middle(connection, shard.domain, selector_fingerprint=selector_fingerprint), "middle"
        chosen = (
            []
            if cut is None
            else around(
                connection, shard.domain, cut, selector_fingerprint=selector_fingerprint, n=_PER_SHARD, what=what
            )
        )
    return excerpts_markdown(
        with_texts(lake, chosen, lambda _: shard, storage_options=sources.storage_options, seconds=_SECONDS_PER_SHARD)
    )


def _paper_first(threshold: dict[str, Any]) -> tuple[bool, str]:
    return selection_of(threshold) != "paper", selection_of(threshold)
