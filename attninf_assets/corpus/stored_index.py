"""The index of a shard in the tables, kept free of doc_ids that another shard of the domain holds.

Other shards may be indexed at the same time, by other processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.indexing import IndexedShard, index_shard
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake

__all__ = ["StoredIndex", "index_and_store", "indexed_from"]


@dataclass(frozen=True)
class StoredIndex:
    """A shard's index as it stands in the tables `documents` and `quarantine`."""

    indexed: IndexedShard
    version: int | None  # of the table `documents`
    changed: bool  # whether that version was written to store this index


def index_and_store(lake: Lake, shard: Shard, *, storage_options: StorageOptions = NO_OPTIONS) -> StoredIndex:
    """Index the shard and put the result in place of its rows in `documents` and `quarantine`.

    Of shards that share a doc_id the one committed first keeps it; the others refuse the row as a duplicate. Where
    another was committed between the look at the table and the commit here, this one gives way: it is indexed again.
    So it is where the other shard that an id was refused for has given that id up meanwhile. Once all have ended, each
    id lives in one shard. They do end: what was committed first here is not given up for what came later, so it is
    there to stay, and for each id some shard's commit is the first.
    """
    where = {"domain": shard.domain, "shard": shard.name}
    kept: set[str] = set()  # ids that were committed here first
    while True:
        seen = lake.version("documents")
        elsewhere = _Elsewhere(lake, where, kept)
        indexed = index_shard(shard, storage_options=storage_options, known_elsewhere=elsewhere.look)
        lake.replace_if_changed("quarantine", indexed.quarantine, where=where)
        version, changed = lake.replace_if_changed("documents", indexed.documents, where=where)
        ids = indexed.documents["doc_id"]
        lost = _earlier_elsewhere(lake, ids, where, since=seen, until=version) - kept if changed else set()
        if not lost and not elsewhere.given_up():
            return StoredIndex(indexed, version, changed)
        kept = set(ids.to_pylist()) - lost


def indexed_from(lake: Lake, key: str) -> str | None:
    """The URI of the file that the shard was indexed from last; None where it is not indexed, or was empty."""
    domain, _, name = key.partition(".")
    for table in ("documents", "quarantine"):
        for batch in lake.batches(table, columns=["source_uri"], where={"domain": domain, "shard": name}):
            if len(batch):
                return str(batch["source_uri"][0])
    return None


class _Elsewhere:
    """The ids that one look found in other shards of the domain, those in `kept` aside."""

    def __init__(self, lake: Lake, where: Mapping[str, str], kept: set[str]) -> None:
        self._lake, self._where, self._kept = lake, where, kept
        self._found: set[str] = set()

    def look(self, ids: pa.Array) -> set[str]:
        self._found = _ids_elsewhere(self._lake, ids, self._where) - self._kept
        return self._found

    def given_up(self) -> bool:
        """Whether some of what was found is in no other shard now."""
        if not self._found:
            return False
        return _ids_elsewhere(self._lake, pa.array(sorted(self._found), pa.string()), self._where) != self._found


def _ids_elsewhere(lake: Lake, ids: pa.Array, where: Mapping[str, str]) -> set[str]:
    """Which of `ids` the table `documents` holds for another shard of the domain."""
    with connect(lake, "documents", where={"domain": where["domain"]}) as connection:
        connection.register("ids", pa.table({"doc_id": ids}))
        found = connection.execute(
            "SELECT DISTINCT doc_id FROM documents SEMI JOIN ids USING (doc_id) WHERE shard <> ?", [where["shard"]]
        ).fetchall()
    return {doc_id for (doc_id,) in found}


def _earlier_elsewhere(
    lake: Lake, ids: pa.ChunkedArray, where: Mapping[str, str], *, since: int | None, until: int | None
) -> set[str]:
    """Which of `ids` are in another shard of the domain that was committed after version `since`, up to `until`."""
    assert until is not None
    found: set[str] = set()
    domain = {"domain": where["domain"]}
    for partition in lake.partitions_written("documents", since=since, until=until, where=domain):
        if partition != where:
            theirs = lake.read("documents", columns=["doc_id"], where=partition, version=until)["doc_id"]
            found.update(theirs.filter(pc.is_in(theirs, value_set=ids)).to_pylist())
    return found
