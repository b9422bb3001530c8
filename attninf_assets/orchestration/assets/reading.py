"""Documents to read beside the numbers: of a selection by domain, and of a shard's scores."""

from collections.abc import Mapping
from functools import partial

import dagster as dg

from attninf_assets.corpus.discovery import Corpus
from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.stored_index import indexed_from
from attninf_assets.orchestration.connections.resources import CorpusResource
from attninf_assets.orchestration.display.excerpts import excerpts_markdown
from attninf_assets.selection.documents_to_read import around, middle, with_texts
from attninf_assets.selection.last_cut import last_cut
from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake
from attninf_assets.store.uris import redacted

__all__ = ["selection_to_read", "shard_to_read"]

_PER_PART = 10  # documents at the top, around the cut, at the bottom
_PER_SELECTION = 1_000  # documents in all; metadata is kept with every event
_PER_SHARD = 5
_SECONDS_PER_SHARD = 10.0


def selection_to_read(
    lake: Lake,
    corpus: CorpusResource,
    selection: str,
    cuts: Mapping[str, tuple[float, str]],
    *,
    selector_fingerprint: str,
) -> dict[str, dg.MarkdownMetadataValue | str]:
    """Metadata `read_<selection>_<domain>` for each domain: its highest documents, those around the cut, its lowest.

    `cuts` is by domain the (score, doc_id) of the last document kept. Of many domains there are fewer documents each.
    Where the corpus cannot be opened it is that which is told: the selection is stored already.
    """
    try:
        sources = corpus.open()
    except (ValueError, OSError) as error:
        return {f"read_{selection}": f"the corpus cannot be opened: {redacted(error)}"}
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
    last = last_cut(lake, shard.domain, selector_fingerprint)
    with connect(lake, "scores", where=where) as connection:
        if last is not None:
            cut: tuple[float, str] | None = (last.score, last.doc_id)
            what = "cut"
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
