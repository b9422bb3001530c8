"""Documents of a domain that are the same, or nearly so, wherever in it they lie: two columns of `document_features`.

Found over all of a domain's documents at once, so that it does not matter in which order shards were computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.scores.features.measures import FEATURES_VERSION
from attninf_assets.store.query import connect, rows_digest
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

if TYPE_CHECKING:
    import duckdb

__all__ = ["Duplicates", "find_near_duplicates", "mark_near_duplicates"]

_FOUND = ("duplicate_group", "near_duplicate_cluster")
MEMORY_LIMIT = "4GB"  # of DuckDB; what does not fit spills to the temporary directory


@dataclass(frozen=True)
class Duplicates:
    """What was found in a domain, and what was done to say so."""

    domain: str
    n_documents: int  # with features that are current
    n_duplicates: int  # of them, those whose very text another has
    n_near_duplicates: int  # those that are in a cluster, duplicates included
    n_clusters: int
    largest_cluster: int
    digest: str  # changes when what was found does
    shards_written: int
    shards_passed_over: int  # that others were at work on: they are to be marked again


_TABLES = ("documents", "document_features")

_CURRENT = f"""
    CREATE TEMP VIEW current_features AS
    SELECT shard, doc_id, text_sha256, minhash_bands FROM document_features
    SEMI JOIN documents USING (shard, doc_id, text_sha256) WHERE features_version = {FEATURES_VERSION}
"""
# Of all documents that share a key each is linked to the least: as connected as if every two were.
_LINKED = """
    CREATE TEMP TABLE links AS
    WITH keys AS (
        SELECT doc_id, unnest(minhash_bands) AS key FROM current_features
        UNION ALL SELECT doc_id, (md5_number_lower(text_sha256) >> 1)::BIGINT AS key FROM current_features
    ), shared AS (SELECT key, min(doc_id) AS least FROM keys GROUP BY key HAVING count(*) > 1)
    SELECT DISTINCT doc_id, least FROM keys JOIN shared USING (key) WHERE doc_id <> least
"""
_NODES = """
    CREATE TEMP TABLE nodes AS
    SELECT doc_id, row_number() OVER (ORDER BY doc_id) - 1 AS node
    FROM (SELECT doc_id FROM links UNION SELECT least FROM links)
"""
_FOUND_TABLE = """
    CREATE TEMP TABLE found AS
    WITH same AS (SELECT text_sha256 FROM current_features GROUP BY text_sha256 HAVING count(*) > 1)
    SELECT shard, doc_id, text_sha256, same.text_sha256 AS duplicate_group, least.doc_id AS near_duplicate_cluster
    FROM current_features JOIN nodes USING (doc_id) JOIN components USING (node)
    JOIN nodes AS least ON least.node = components.least LEFT JOIN same USING (text_sha256)
"""
_COUNTS = ("n_documents", "n_duplicates", "n_near_duplicates", "n_clusters", "largest_cluster")
_COUNTED = """
    WITH sizes AS (SELECT count(*) AS size FROM found GROUP BY near_duplicate_cluster)
    SELECT (SELECT count(*) FROM current_features),
           (SELECT count(duplicate_group) FROM found), (SELECT count(*) FROM found),
           (SELECT count(*) FROM sizes), (SELECT coalesce(max(size), 0) FROM sizes)
"""
_DIFFERING = """
    SELECT DISTINCT shard FROM document_features LEFT JOIN found USING (shard, doc_id, text_sha256)
    WHERE document_features.duplicate_group IS DISTINCT FROM found.duplicate_group
       OR document_features.near_duplicate_cluster IS DISTINCT FROM found.near_duplicate_cluster
    ORDER BY shard
"""
_OF_SHARD = "SELECT doc_id, text_sha256, duplicate_group, near_duplicate_cluster FROM found WHERE shard = ?"


def mark_near_duplicates(lake: Lake, domain: str) -> Duplicates:
    """Find the domain's duplicates and write them into the rows of `document_features` that do not say so yet.

    Documents are near duplicates that share a band hash, or their text; clusters are the connected components, named by
    their least doc_id. Only rows of today's definitions whose very text is indexed count; all others are in none. A
    shard is replaced only if nobody else has replaced it since, so that newer features are never lost.
    """
    where = {"domain": domain}
    versions = {name: version for name in _TABLES if (version := lake.version(name)) is not None}
    seen = versions.get("document_features")
    with connect(lake, *_TABLES, where=where, versions=versions, memory_limit=MEMORY_LIMIT) as connection:
        find_near_duplicates(connection)
        (counted,) = connection.execute(_COUNTED).fetchall()
        digest = rows_digest(connection, "found", ["shard", "doc_id", "text_sha256", "near_duplicate_cluster"])
        differing = [shard for (shard,) in connection.execute(_DIFFERING).fetchall()]
        passed_over = 0
        for shard in differing:
            found = connection.sql(_OF_SHARD, params=[shard]).to_arrow_table()
            of_shard = {**where, "shard": shard}
            rows = _marked(lake.read("document_features", where=of_shard, version=seen), found)
            files = lake.files("document_features", where=of_shard, version=seen)
            passed_over += not lake.replace_if_still("document_features", rows, where=of_shard, holding=files)
    return Duplicates(
        domain,
        **dict(zip(_COUNTS, counted, strict=True)),
        digest=digest,
        shards_written=len(differing) - passed_over,
        shards_passed_over=passed_over,
    )


def find_near_duplicates(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table `found` from the views `documents` and `document_features` of a domain.

    It has a row for every document that has duplicates: shard, doc_id, text_sha256, duplicate_group and
    near_duplicate_cluster.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    for statement in (_CURRENT, _LINKED, _NODES):
        connection.execute(statement)
    (n_nodes,) = connection.execute("SELECT count(*) FROM nodes").fetchall()[0]
    links = connection.execute(
        "SELECT a.node AS a, b.node AS b FROM links JOIN nodes AS a USING (doc_id) "
        "JOIN nodes AS b ON b.doc_id = links.least"
    ).fetchnumpy()
    graph = coo_array((np.ones(len(links["a"]), dtype=bool), (links["a"], links["b"])), shape=(n_nodes, n_nodes))
    _, label_N = connected_components(graph, directed=False)
    _, least_C, component_N = np.unique(label_N, return_index=True, return_inverse=True)  # nodes are sorted by doc_id
    components = pa.table({"node": np.arange(n_nodes), "least": least_C[component_N] if n_nodes else least_C})
    connection.register("components", components)
    connection.execute(_FOUND_TABLE)


def _marked(rows: pa.Table, found: pa.Table) -> pa.Table:
    """The rows, each saying what was found of it, and the others that nothing was."""
    place = pc.index_in(rows["doc_id"], value_set=found["doc_id"])
    same_text = pc.equal(rows["text_sha256"], found["text_sha256"].take(place))
    place = pc.if_else(pc.fill_null(same_text, False), place, pa.scalar(None, pa.int32()))
    schema = TABLES["document_features"]
    for name in _FOUND:
        rows = rows.set_column(schema.get_field_index(name), schema.field(name), found[name].take(place))
    return rows
