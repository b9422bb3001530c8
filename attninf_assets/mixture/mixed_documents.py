"""The corpus on its way into the mix: every indexed document with its text, its tokens and whether it is selected."""

from collections.abc import Iterator, Mapping

import pyarrow.compute as pc

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.texts import indexed_documents
from attninf_assets.influence.runtime.progress import OnProgress, ProgressClock, ignore_progress
from attninf_assets.mixture.snapshot import MixSnapshot
from attninf_assets.mixture.training_corpus import MixedDocument
from attninf_assets.store.filesystems import StorageOptions

__all__ = ["mixed_documents"]


def mixed_documents(
    snapshot: MixSnapshot,
    shards: Mapping[str, Shard],
    *,
    storage_options: StorageOptions,
    on_progress: OnProgress = ignore_progress,
) -> Iterator[MixedDocument]:
    """Every document of the snapshot, shard by shard, read back from where it landed.

    `shards` are the corpus's shards by key. Raises `ValueError` naming the shard where an indexed one is not among
    them, and where a source changed since it was indexed.
    """
    lake, versions = snapshot.lake, snapshot.versions
    by_shard = snapshot.documents_by_shard()
    clock = ProgressClock("documents", sum(count for _, _, count in by_shard), on_progress)
    for domain, name, _ in by_shard:
        shard = shards.get(f"{domain}.{name}")
        if shard is None:
            raise ValueError(
                f"shard {domain}.{name} is indexed, but the corpus file's globs no longer match its file; if it is "
                "gone for good, run the job retire_shards"
            )
        where = {"domain": domain, "shard": name}
        current = lake.read(
            "scores",
            columns=["doc_id", "n_tokens"],
            where=where,
            only=pc.field("selector_fingerprint") == snapshot.selector_fingerprint,
            version=versions["scores"],
        )
        n_tokens = dict(zip(current["doc_id"].to_pylist(), current["n_tokens"].to_pylist(), strict=True))
        chosen = lake.read(
            "selected_subset",
            columns=["doc_id", "copies"],
            where={"selection": snapshot.name, "domain": domain},
            only=pc.field("shard") == name,
            version=versions["selected_subset"],
        )
        selected = dict(zip(chosen["doc_id"].to_pylist(), chosen["copies"].to_pylist(), strict=True))
        documents = lake.read("documents", where=where, version=versions["documents"])
        for document in indexed_documents(shard, documents, storage_options=storage_options):
            yield MixedDocument(
                document.doc_id,
                domain,
                document.text,
                n_tokens.get(document.doc_id),
                selected=selected.get(document.doc_id, 0),
            )
            clock.advance(1, tokens=n_tokens.get(document.doc_id, 0))
