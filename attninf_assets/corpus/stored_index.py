"""The index of a shard in the tables, kept free of doc_ids that another shard of the domain holds.

Other shards may be indexed at the same time, by other processes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import LandedShard
from attninf_assets.corpus.holders import holding, refused_for, take_out_outdated, waiting
from attninf_assets.corpus.indexing import IndexedShard, index_shard, refused_file
from attninf_assets.store.damage import DamagedTableError
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.tables import Lake

__all__ = ["StoredIndex", "index_and_store", "index_waiting", "indexed_from"]


@dataclass(frozen=True)
class StoredIndex:
    """A shard's index as it stands in the tables `documents` and `quarantine`."""

    landed: LandedShard
    indexed: IndexedShard
    version: int | None  # of the table `documents`
    changed: bool  # whether that version was written to store this index


def index_and_store(lake: Lake, landed: LandedShard, *, storage_options: StorageOptions = NO_OPTIONS) -> StoredIndex:
    """Index the shard and put the result in place of its rows in `documents` and `quarantine`.

    Of shards that share a doc_id the one committed first keeps it; the others refuse the row as a duplicate. But a
    shard whose file is another now than was indexed, or gone, keeps none that is needed here: its rows are taken out,
    and come back when it is indexed.

    Where another shard was committed between the look at the table and the commit here, this one gives way. It looks
    again, too, where the other shard that an id was refused for has given that id up meanwhile, and where another run
    put rows of its own in place of these. Once all have ended, each id lives in one shard. They do end: what was
    committed first here is not given up for what came later, so it is there to stay, and for each id some shard's
    commit is the first. What other shards refused for the sake of an id that is no longer here, `index_waiting` finds.

    Raises ValueError where the file cannot be read, as `read_shard` does; the file then has a row in `quarantine`, and
    its former documents stay unless another shard needs one.
    """
    shard = landed.shard
    where = {"domain": shard.domain, "shard": shard.name}
    try:
        alone = index_shard(shard, version=landed.version, storage_options=storage_options)
    except ValueError as error:
        lake.replace_if_changed("quarantine", refused_file(shard, error, version=landed.version), where=where)
        if refused_for(lake, where):
            take_out_outdated(lake, shard.domain, [shard.name], storage_options=storage_options)
        raise
    ids = alone.documents["doc_id"].combine_chunks()
    kept: set[str] = set()  # ids that were committed here first
    while True:
        seen = lake.version("documents")
        elsewhere = holding(lake, ids, where, storage_options=storage_options)
        held = {doc_id: holder for doc_id, holder in elsewhere.held.items() if doc_id not in kept}
        indexed = alone.without(held)
        refusals, _ = lake.replace_if_changed("quarantine", indexed.quarantine, where=where)
        version, changed = lake.replace_if_changed("documents", indexed.documents, where=where)
        ours = indexed.documents["doc_id"]
        lost = _earlier_elsewhere(lake, ours, where, since=seen, until=version) - kept if changed else set()
        refused = pa.array(held, pa.string())
        still_held = not held or holding(lake, refused, where, storage_options=storage_options).held == held
        if not lost and still_held and _still_there(lake, where, {"quarantine": refusals, "documents": version}):
            break
        kept = set(ours.to_pylist()) - lost
    take_out_outdated(lake, shard.domain, elsewhere.outdated, storage_options=storage_options)
    return StoredIndex(landed, indexed, version, changed)


def index_waiting(
    lake: Lake,
    key: str,
    *,
    find: Callable[[str], LandedShard],
    storage_options: StorageOptions = NO_OPTIONS,
) -> dict[str, StoredIndex | ValueError]:
    """Index the shards again, by key, that refuse a document for the sake of one that shard `key` had and has no more.

    To be called after each change of a shard's index, its retirement among them; it may be repeated. `find` gives the
    shard of a key, and raises ValueError where it is no longer there. A shard that cannot be indexed again is told with
    the reason: its file is another by now, which is indexed in its own turn, or gone.
    """
    domain, _, name = key.partition(".")
    done: dict[str, StoredIndex | ValueError] = {}
    changed = {name}
    while left := [f"{domain}.{shard}" for shard in waiting(lake, domain, changed) if f"{domain}.{shard}" not in done]:
        for other in left:
            try:
                done[other] = index_and_store(lake, find(other), storage_options=storage_options)
            except DamagedTableError:
                raise
            except ValueError as error:
                done[other] = error
            changed.add(other.partition(".")[2])
    return done


def indexed_from(lake: Lake, key: str) -> str | None:
    """The URI of the file that the shard was indexed from last; None where it is not indexed, or was empty."""
    domain, _, name = key.partition(".")
    for table in ("documents", "quarantine"):
        for batch in lake.batches(table, columns=["source_uri"], where={"domain": domain, "shard": name}):
            if len(batch):
                return str(batch["source_uri"][0])
    return None


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


def _still_there(lake: Lake, where: Mapping[str, str], versions: Mapping[str, int | None]) -> bool:
    """Whether the shard's files are those of these versions of the tables."""
    return all(
        lake.version(table) == version
        or lake.files(table, where=where) == lake.files(table, where=where, version=version)
        for table, version in versions.items()
    )
