"""The corpus on its way into the mix: every indexed document with its text, its tokens and whether it is selected."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc

from attninf_assets.corpus.schema import Shard
from attninf_assets.corpus.texts import indexed_documents
from attninf_assets.influence.progress import OnProgress, ProgressClock, ignore_progress
from attninf_assets.selection.manifest import CORPUS_DIRECTORY, Manifest
from attninf_assets.selection.mixing import MixedDocument
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake


@dataclass(frozen=True)
class MixSettings:
    """What is chosen about a mix; see `write_training_corpus`."""

    seed: int
    corpus_weight: float
    selected_weight: float
    rows_per_file: int


def current_manifest(root: Root, settings: MixSettings, provenance: Mapping[str, Any]) -> Manifest | None:
    """The manifest of the training corpus that is there, if it is of these settings and provenance and all its files
    are there; else None."""
    if not root.exists(f"{CORPUS_DIRECTORY}/manifest.json"):
        return None
    manifest = Manifest.read(root)
    same = all(getattr(manifest, name) == value for name, value in asdict(settings).items())
    if not same or manifest.provenance != provenance or not all(root.exists(file.path) for file in manifest.files):
        return None
    return manifest


def mixed_documents(
    lake: Lake,
    shards: Mapping[str, Shard],
    *,
    selector_fingerprint: str,
    storage_options: Mapping[str, str],
    on_progress: OnProgress = ignore_progress,
) -> Iterator[MixedDocument]:
    """Every document of the table `documents`, shard by shard, read back from where it landed.

    `shards` are the corpus's shards by key. Raises `ValueError` naming the shard where an indexed one is not among
    them, and where a source changed since it was indexed.
    """
    index = (
        lake.read("documents", columns=["domain", "shard"]).group_by(["domain", "shard"]).aggregate([([], "count_all")])
    )
    rows = sorted(zip(*(index[name].to_pylist() for name in ("domain", "shard", "count_all")), strict=True))
    clock = ProgressClock("documents", sum(count for _, _, count in rows), on_progress)
    for domain, name, _ in rows:
        shard = shards.get(f"{domain}.{name}")
        if shard is None:
            raise ValueError(f"shard {domain}.{name} is indexed, but the corpus file's globs no longer match its file")
        where = {"domain": domain, "shard": name}
        scores = lake.read("scores", where=where)
        current = scores.filter(pc.field("selector_fingerprint") == selector_fingerprint)
        n_tokens = dict(zip(current["doc_id"].to_pylist(), current["n_tokens"].to_pylist(), strict=True))
        chosen = lake.read("selected_subset", columns=["doc_id", "shard"], where={"domain": domain})
        selected = set(chosen.filter(pc.field("shard") == name)["doc_id"].to_pylist())
        documents = lake.read("documents", where=where)
        for document in indexed_documents(shard, documents, storage_options=storage_options):
            yield MixedDocument(
                document.doc_id, domain, document.text, n_tokens.get(document.doc_id), document.doc_id in selected
            )
            clock.advance(1, tokens=n_tokens.get(document.doc_id, 0))
