"""Taking a shard out of the tables, once its source file is gone for good."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

from attninf_assets.store.query import connect
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

__all__ = ["Retired", "retire_shard", "stored_shards"]


@dataclass(frozen=True)
class Retired:
    """How many rows of a shard were taken out of each table."""

    scores: int
    documents: int
    quarantine: int
    features: int


def stored_shards(lake: Lake) -> set[tuple[str, str]]:
    """Domain and name of every shard with a row in `documents`, `quarantine`, `scores` or `document_features`."""
    with connect(lake, "documents", "quarantine", "scores", "document_features") as connection:
        rows = connection.execute(
            """
            SELECT domain, shard FROM documents
            UNION SELECT domain, shard FROM quarantine
            UNION SELECT domain, shard FROM scores
            UNION SELECT domain, shard FROM document_features
            """
        ).fetchall()
    return {(domain, shard) for domain, shard in rows}


def retire_shard(lake: Lake, *, domain: str, shard: str) -> Retired:
    """Take the shard's rows out of `scores`, its features, `documents`, then `quarantine`; earlier versions keep them.

    In this order an interrupted retirement leaves documents without scores, never scores of unknown documents.
    Repeat it as you like: what is out already counts 0. Raises `ValueError` where `domain` or `shard` is empty.
    """
    return Retired(
        scores=_emptied(lake, "scores", domain=domain, shard=shard),
        features=_emptied(lake, "document_features", domain=domain, shard=shard),
        documents=_emptied(lake, "documents", domain=domain, shard=shard),
        quarantine=_emptied(lake, "quarantine", domain=domain, shard=shard),
    )


def _emptied(lake: Lake, name: str, *, domain: str, shard: str) -> int:
    where = {"domain": domain, "shard": shard}
    n_rows = lake.count(name, where=where)
    if n_rows:
        lake.replace(name, TABLES[name].empty_table(), where=where)
    return n_rows


def to_retire(wanted: Sequence[str], *, known: Set[str], landed: Set[str], domains: Set[str]) -> list[str]:
    """The shard keys to retire, sorted: those `wanted`; if none are, every `known` one that is not `landed`.

    `known` are stored or have a partition, `landed` have their file, `domains` are the corpus file's. Raises
    `ValueError` naming the key where a wanted one is landed or unknown, and naming the domain where none is wanted and
    no file at all of a domain was found: a folder that is away for the moment looks the same.
    """
    for key in wanted:
        if key in landed:
            raise ValueError(f"shard {key}: its file is still there; move or delete the file before retiring the shard")
        if key not in known:
            raise ValueError(f"shard {key}: nothing of it is stored and it has no partition")
    if wanted:
        return sorted(set(wanted))
    gone = sorted(known - landed)
    emptied = domains - {key.partition(".")[0] for key in landed}
    for key in gone:
        if (domain := key.partition(".")[0]) in emptied:
            raise ValueError(
                f"shard {key}: no file of domain {domain!r} was found, is its folder away? If they are gone for good, "
                "name the shards to retire, or take the domain out of the corpus file"
            )
    return gone
