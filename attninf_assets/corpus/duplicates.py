"""Ids that live in another shard of the domain already."""

import pyarrow as pa

from attninf_assets.store.query import connect
from attninf_assets.store.tables import Lake


def ids_elsewhere(lake: Lake, ids: pa.Array, *, domain: str, shard: str) -> set[str]:
    """Which of `ids` the table `documents` holds for another shard of the domain."""
    with connect(lake, "documents", where={"domain": domain}) as connection:
        connection.register("ids", pa.table({"doc_id": ids}))
        found = connection.execute(
            "SELECT DISTINCT doc_id FROM documents SEMI JOIN ids USING (doc_id) WHERE shard <> ?", [shard]
        ).fetchall()
    return {doc_id for (doc_id,) in found}
