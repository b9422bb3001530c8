"""A document looked up by its id in every table that knows it, and what comes near an id that none knows."""

from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from attninf_assets.store.query import connect
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

__all__ = ["StoredDocument", "find_document"]

FEATURES = "document_features"
_NO_FEATURES = ("doc_id", "domain", "shard", "text_sha256", "n_bytes", "minhash_bands", "features_version")
_N_NEAR = 3


@dataclass(frozen=True)
class StoredDocument:
    """What the tables hold of a document: its row of each, None where a table has none."""

    domain: str
    doc_id: str
    indexed: dict[str, Any] | None  # of `documents`
    scored: dict[str, Any] | None  # of `scores`, by whatever selector
    features: dict[str, Any] | None  # of `document_features`: of this very text

    @property
    def shard(self) -> str:
        """The shard's name."""
        row = self.indexed or self.scored
        assert row is not None, "a document is in one of the two"
        return str(row["shard"])


def find_document(lake: Lake, domain: str, doc_id: str) -> StoredDocument:
    """What is stored of a document.

    Raises `ValueError` where neither `documents` nor `scores` has it: with the reason if the row was refused, with the
    domains there are if there is none of that name, and else with the ids that come nearest.
    """
    indexed = _row(lake, "documents", domain, doc_id)
    scored = _row(lake, "scores", domain, doc_id)
    if indexed is None and scored is None:
        raise ValueError(_missing(lake, domain, doc_id))
    features = _row(lake, FEATURES, domain, doc_id) if FEATURES in TABLES else None
    if features is not None and indexed is not None and features["text_sha256"] != indexed["text_sha256"]:
        features = None
    told = None if features is None else {name: features[name] for name in features if name not in _NO_FEATURES}
    return StoredDocument(domain, doc_id, indexed, scored, told)


def _row(lake: Lake, table: str, domain: str, doc_id: str) -> dict[str, Any] | None:
    if not domain:
        return None
    rows = lake.read(table, where={"domain": domain}, only=pc.field("doc_id") == doc_id).to_pylist()
    return rows[0] if rows else None


def _missing(lake: Lake, domain: str, doc_id: str) -> str:
    domains = sorted({part["domain"] for table in ("documents", "scores") for part in lake.partitions(table)})
    if domain not in domains:
        return f"domain {domain!r}: no document of it is in the tables; there are {', '.join(domains) or 'none'}"
    looked = f"document {doc_id!r} of domain {domain!r} is neither in documents nor in scores"
    refused = _row(lake, "quarantine", domain, doc_id)
    if refused is not None:
        row = "" if refused["source_row"] is None else f", row {refused['source_row']}"
        return f"{looked}: it is in quarantine, {refused['source_uri']}{row} was refused: {refused['reason']}"
    near = _nearest(lake, domain, doc_id)
    return f"{looked}, nor by its id in quarantine; nearest: {', '.join(map(repr, near))}"


def _nearest(lake: Lake, domain: str, doc_id: str) -> list[str]:
    """The domain's ids most like this one, by Jaro-Winkler similarity."""
    with connect(lake, "documents", "scores", where={"domain": domain}) as connection:
        rows = connection.execute(
            "SELECT doc_id FROM (SELECT doc_id FROM documents UNION ALL SELECT doc_id FROM scores) GROUP BY doc_id "
            "ORDER BY jaro_winkler_similarity(doc_id, $1) DESC, doc_id LIMIT $2",
            [doc_id, _N_NEAR],
        ).fetchall()
    return [str(found) for (found,) in rows]
