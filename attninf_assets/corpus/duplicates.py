"""A shard's index in the tables, its doc_ids unique in the domain though other shards are indexed at the same time."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.corpus.indexing import IndexedShard, index_shard
from attninf_assets.corpus.schema import Shard
from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake

__all__ = ["StoredIndex", "index_and_store"]


@dataclass(frozen=True)
class StoredIndex:
    """A shard's index as it stands in the tables `documents` and `quarantine`."""

    indexed: IndexedShard
    version: int | None  # of `documents`
    changed: bool  # whether that version was written for it


def index_and_store(lake: Lake, shard: Shard, *, storage_options: StorageOptions = NO_OPTIONS) -> StoredIndex:
    """Index the shard and put the result in place of its rows in `documents` and `quarantine`.

    Of shards that share a doc_id the one committed first keeps it; the others refuse the row as a duplicate. Where
    another was committed between the look at the table and the commit here, this one gives way: it is indexed again.
    """
    where = {"domain": shard.domain, "shard": shard.name}
    while True:
        seen = lake.version("documents")
        indexed = index_shard(
            shard, storage_options=storage_options, known_elsewhere=lambda ids: _ids_elsewhere(lake, ids, where)
        )
        lake.replace_if_changed("quarantine", indexed.quarantine, where=where)
        version, changed = lake.replace_if_changed("documents", indexed.documents, where=where)
        if not changed or not _came_too_late(lake, indexed.documents["doc_id"], where, since=seen, until=version):
            return StoredIndex(indexed, version, changed)


def _ids_elsewhere(lake: Lake, ids: pa.Array, where: Mapping[str, str]) -> set[str]:
    """Which of `ids` the table `documents` holds for another shard of the domain."""
    with connect(lake, "documents", where={"domain": where["domain"]}) as connection:
        connection.register("ids", pa.table({"doc_id": ids}))
        found = connection.execute(
            "SELECT DISTINCT doc_id FROM documents SEMI JOIN ids USING (doc_id) WHERE shard <> ?", [where["shard"]]
        ).fetchall()
    return {doc_id for (doc_id,) in found}


def _came_too_late(
    lake: Lake, ids: pa.ChunkedArray, where: Mapping[str, str], *, since: int | None, until: int | None
) -> bool:
    """Whether another shard of the domain with one of `ids` was committed after version `since`, up to `until`."""
    assert until is not None
    domain = {"domain": where["domain"]}
    for partition in lake.partitions_written("documents", since=since, until=until, where=domain):
        if partition != where:
            theirs = lake.read("documents", columns=["doc_id"], where=partition, version=until)
            if pc.any(pc.is_in(theirs["doc_id"], value_set=ids)).as_py():
                return True
    return False
