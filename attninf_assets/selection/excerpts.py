"""How the texts of a few documents begin, read back from where they landed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import LandedShard
from attninf_assets.corpus.printable import printable, shortened
from attninf_assets.corpus.texts import indexed_documents
from attninf_assets.selection.comparison import Moved
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.tables import Lake

__all__ = ["excerpts_of"]

_LONGEST = 160  # characters


def excerpts_of(
    lake: Lake,
    moved: Iterable[Moved],
    *,
    find: Callable[[str], LandedShard],
    storage_options: StorageOptions = NO_OPTIONS,
) -> dict[tuple[str, str], str]:
    """The beginning of each document's text by (domain, doc_id), in one line, what would act in it escaped.

    In place of a text that cannot be read stands the reason, in brackets. `find` gives the shard of a key. Reads a
    shard's source up to the last of its documents that is asked for.
    """
    excerpts: dict[tuple[str, str], str] = {}
    for (domain, shard), group in groupby(sorted(moved, key=_place), key=_place):
        ids = [one.doc_id for one in group]
        found: dict[str, str] = {}
        missing = "no longer indexed"
        try:
            documents = lake.read(
                "documents",
                where={"domain": domain, "shard": shard},
                only=pc.is_in(pc.field("doc_id"), value_set=pa.array(ids, pa.string())),
            )
            if len(documents):
                source = find(f"{domain}.{shard}").shard
                for document in indexed_documents(source, documents, storage_options=storage_options):
                    found[document.doc_id] = shortened(document.text, most=_LONGEST)
        except (ValueError, OSError) as error:  # a source that is gone or changed is no reason to show nothing
            missing = printable(" ".join(str(error).split()))
        excerpts |= {(domain, doc_id): found.get(doc_id, f"[{missing}]") for doc_id in ids}
    return excerpts


def _place(moved: Moved) -> tuple[str, str]:
    return moved.domain, moved.shard
