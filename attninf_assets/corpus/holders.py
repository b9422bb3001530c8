"""Which shards of a domain hold which doc_ids, and which of them still say what their files say.

A shard whose file was replaced or removed since it was indexed holds its ids only until another shard needs one of
them. So a domain whose documents were shuffled over its files is indexed in one pass, in any order.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import file_version
from attninf_assets.corpus.indexing import HELD_ELSEWHERE
from attninf_assets.store.filesystems import StorageOptions, files_at
from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake

__all__ = ["Holding", "holding", "is_indexed", "refused_for", "take_out_outdated", "waiting"]


@dataclass(frozen=True)
class Holding:
    """What other shards of a domain hold of some ids."""

    held: Mapping[str, str]  # by id, a shard whose file still is what was indexed
    outdated: frozenset[str]  # shards that hold some of the ids, and whose file is another now, or gone


def holding(lake: Lake, ids: pa.Array, where: Mapping[str, str], *, storage_options: StorageOptions) -> Holding:
    """What the table `documents` says of `ids` for the other shards of the domain. Only shards that hold one of them
    have their files looked up, and none is read."""
    with connect(lake, "documents", where={"domain": where["domain"]}) as connection:
        connection.register("ids", pa.table({"doc_id": ids}))
        found = connection.execute(
            "SELECT doc_id, shard FROM documents SEMI JOIN ids USING (doc_id) WHERE shard <> ? ORDER BY shard DESC",
            [where["shard"]],
        ).fetchall()
    outdated = _outdated(lake, "documents", where, {shard for _, shard in found}, storage_options)
    return Holding({doc_id: shard for doc_id, shard in found if shard not in outdated}, outdated)


def take_out_outdated(lake: Lake, domain: str, shards: Iterable[str], *, storage_options: StorageOptions) -> None:
    """Take out of the index what it says of files that are no longer so; what was indexed meanwhile stays.

    The refusals go first: as long as documents are there, an interrupted call is repeated.
    """
    for shard in sorted(shards):
        where = {"domain": domain, "shard": shard}
        for table in ("quarantine", "documents"):
            files = lake.files(table, where=where)
            if _outdated(lake, table, where, [shard], storage_options):
                lake.take_out(table, where=where, holding=files)


def waiting(lake: Lake, domain: str, changed: Collection[str]) -> list[str]:
    """The shards of the domain that refuse a document for the sake of one that is not there any more.

    That is, in a shard among the `changed` ones, or in a shard that has no documents at all.
    """
    refused = _refused_for_others(lake, domain)
    holder = refused["held_by"]  # null where an older version refused them, which did not say
    standing = [partition["shard"] for partition in lake.partitions("documents", where={"domain": domain})]
    orphaned = pc.invert(pc.is_in(holder, value_set=pa.array(standing, pa.string())))
    found = set(refused.filter(orphaned)["shard"].to_pylist())
    for name in changed:
        rows = refused.filter(pc.equal(holder, name))
        if len(rows):
            ids = lake.read("documents", columns=["doc_id"], where={"domain": domain, "shard": name})["doc_id"]
            found.update(rows.filter(pc.invert(pc.is_in(rows["doc_id"], value_set=ids)))["shard"].to_pylist())
    return sorted(found)


def refused_for(lake: Lake, where: Mapping[str, str]) -> bool:
    """Whether another shard of the domain refuses documents for the sake of this one's."""
    holders = _refused_for_others(lake, where["domain"])["held_by"]
    return bool(pc.any(pc.equal(holders, where["shard"])).as_py())


def is_indexed(lake: Lake, where: Mapping[str, str]) -> bool:
    """Whether the shard's index is there: a document, or a row refused; that its file was refused whole is none."""
    if lake.count("documents", where=where):
        return True
    rows = lake.read("quarantine", columns=["source_row"], where=where)["source_row"]
    return rows.null_count < len(rows)


def _refused_for_others(lake: Lake, domain: str) -> pa.Table:
    """shard, doc_id and held_by of the domain's rows whose id another shard holds, or held when they were refused."""
    batches = []
    for batch in lake.batches("quarantine", columns=["shard", "doc_id", "held_by", "reason"], where={"domain": domain}):
        older = pc.and_(pc.is_null(batch["doc_id"]), pc.ends_with(batch["reason"], HELD_ELSEWHERE))
        batches.append(
            batch.filter(pc.or_(pc.is_valid(batch["held_by"]), older)).select(["shard", "doc_id", "held_by"])
        )
    schema = pa.schema([(name, pa.string()) for name in ("shard", "doc_id", "held_by")])
    return pa.Table.from_batches([batch.cast(schema) for batch in batches], schema=schema)


def _outdated(
    lake: Lake, table: str, where: Mapping[str, str], shards: Iterable[str], storage_options: StorageOptions
) -> frozenset[str]:
    """Those of the domain's shards whose rows in the table are of another file than is there now."""
    sources = {shard: _indexed_file(lake, table, {"domain": where["domain"], "shard": shard}) for shard in shards}
    known = {shard: source for shard, source in sources.items() if source is not None}
    there = files_at([uri for uri, _ in known.values()], storage_options=storage_options)
    now = {uri: file_version(file.n_bytes, file.modified_ns) for uri, file in there.items()}
    return frozenset(
        shard for shard, (uri, version) in known.items() if uri not in now or version not in (None, now[uri])
    )


def _indexed_file(lake: Lake, table: str, where: Mapping[str, str]) -> tuple[str, str | None] | None:
    """URI and version of the file that the shard's rows are of; the version is None in tables of older versions."""
    for batch in lake.batches(table, columns=["source_uri", "source_version"], where=where):
        if len(batch):
            return str(batch["source_uri"][0]), batch["source_version"][0].as_py()
    return None
