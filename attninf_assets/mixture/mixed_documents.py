"""The corpus on its way into the mix: every indexed document with its text, its tokens and whether it is selected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.texts import indexed_documents
from attninf_assets.influence.runtime.progress import OnProgress, ProgressClock, ignore_progress
from attninf_assets.mixture.manifest import CORPUS_DIRECTORY, Manifest
from attninf_assets.mixture.training_corpus import MixedDocument
from attninf_assets.selection.thresholds import selection_digest
from attninf_assets.store.filesystems import StorageOptions
from attninf_assets.store.query import connect, rows_digest
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake

if TYPE_CHECKING:
    pass


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


def indexed_bytes(lake: Lake) -> int:
    """The size of all indexed documents' texts in UTF-8."""
    with connect(lake, "documents") as connection:
        ((n_bytes,),) = connection.execute("SELECT coalesce(sum(n_bytes), 0)::BIGINT FROM documents").fetchall()
    return int(n_bytes)


def mixed_documents(
    lake: Lake,
    shards: Mapping[str, Shard],
    *,
    selector_fingerprint: str,
    storage_options: StorageOptions,
    on_progress: OnProgress = ignore_progress,
) -> Iterator[MixedDocument]:
    """Every document of the table `documents`, shard by shard, read back from where it landed.

    `shards` are the corpus's shards by key. Raises `ValueError` naming the shard where an indexed one is not among
    them, and where a source changed since it was indexed.
    """
    versions = {name: lake.version(name) for name in ("documents", "scores", "selected_subset")}
    with connect(lake, "documents") as connection:
        rows = connection.execute(
            "SELECT domain, shard, count(*) FROM documents GROUP BY domain, shard ORDER BY domain, shard"
        ).fetchall()
    clock = ProgressClock("documents", sum(count for _, _, count in rows), on_progress)
    for domain, name, _ in rows:
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
            only=pc.field("selector_fingerprint") == selector_fingerprint,
            version=versions["scores"],
        )
        n_tokens = dict(zip(current["doc_id"].to_pylist(), current["n_tokens"].to_pylist(), strict=True))
        chosen = lake.read(
            "selected_subset",
            columns=["doc_id"],
            where={"domain": domain},
            only=pc.field("shard") == name,
            version=versions["selected_subset"],
        )
        selected = set(chosen["doc_id"].to_pylist())
        documents = lake.read("documents", where=where, version=versions["documents"])
        for document in indexed_documents(shard, documents, storage_options=storage_options):
            yield MixedDocument(
                document.doc_id, domain, document.text, n_tokens.get(document.doc_id), document.doc_id in selected
            )
            clock.advance(1, tokens=n_tokens.get(document.doc_id, 0))


def mix_provenance(lake: Lake, *, selector_fingerprint: str) -> dict[str, Any]:
    """What a mix is made from: equal provenance, weights and seed give the same files.

    Raises `ValueError` where thresholds or selected subset are missing, of another selector, or not of each other.
    """
    with connect(lake, "documents", "thresholds", "selected_subset") as connection:
        thresholds = connection.execute(
            """
            SELECT domain, fraction, budget, threshold_score, threshold_doc_id, n_selected, coalesce(n, 0),
                   selector_fingerprint, coalesce(subset_fingerprint, selector_fingerprint)
            FROM thresholds FULL JOIN (
                SELECT domain, count(*) AS n, any_value(selector_fingerprint) AS subset_fingerprint
                FROM selected_subset GROUP BY domain) USING (domain) ORDER BY domain
            """
        ).fetchall()
        digests = {
            "documents": rows_digest(connection, "documents", ["domain", "shard", "doc_id", "text_sha256"]),
            "selected_subset": selection_digest(connection),
        }
    if not thresholds:
        raise ValueError("no thresholds: materialize score_thresholds and selected_subset first")
    for domain, *_, n_wanted, n_selected, of_thresholds, of_subset in thresholds:
        if not selector_fingerprint == of_thresholds == of_subset:
            raise ValueError(
                f"the selection of domain {domain!r} is not by the selector in use, {selector_fingerprint}: "
                "materialize score_thresholds and selected_subset again"
            )
        if n_wanted != n_selected:
            raise ValueError(
                f"domain {domain!r}: {n_selected} documents are selected, its threshold says {n_wanted}: "
                "materialize selected_subset again"
            )
    names = ["domain", "fraction", "budget", "threshold_score", "threshold_doc_id", "n_selected"]
    selection = [dict(zip(names, row, strict=False)) for row in thresholds]
    return {"selector_fingerprint": selector_fingerprint, "selection": selection, "digests": digests}
