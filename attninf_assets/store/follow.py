"""A table that follows the log of another: rows made of what its commits note, none lost and none twice.

How far it has come is part of the commit that adds the rows. So whoever comes next goes on from there, whatever was
killed in between, and of two that do so at once one has to begin again and finds the work done.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from attninf_assets.store.commits import TRANSACTIONS, Commit
from attninf_assets.store.incoming_rows import conform
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import COMPRESSED, Lake

__all__ = ["follow"]

_MOST_READ_AGAIN = 50  # commits that note nothing: only past so many is it worth a commit to say that they were seen
_AT_ONCE = 8


def follow(lake: Lake, name: str, *, source: str, rows_of: Callable[[Commit], pa.Table]) -> int:
    """Add to the table `name` the rows of every commit of `source` that has not given its rows yet; how many rows.

    A `source` that was made anew is followed from its beginning, one that was put back to an earlier version from
    there. What left the log before anybody came is lost: commits expire after 30 days.
    """
    if not lake.exists(source):
        return 0

    def add(table: DeltaTable) -> int:
        origin = lake.origin(source)
        if origin is None:
            return 0
        identity, version = origin
        writer = f"{source} {identity}"
        seen = table.transaction_version(writer)
        after = -1 if seen is None else seen
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            commits = pool.map(lambda number: Commit.read(lake.root, source, number), range(after + 1, version + 1))
            found = [rows_of(commit) for commit in commits if commit is not None]
        rows = conform(name, pa.concat_tables([TABLES[name].empty_table(), *found]), where={})
        if not len(rows) and 0 <= version - after <= _MOST_READ_AGAIN:
            return 0
        write_deltalake(
            table,
            rows,
            mode="append",
            writer_properties=COMPRESSED,
            commit_properties=CommitProperties(
                app_transactions=[Transaction(writer, version)], custom_metadata={TRANSACTIONS: "1"}
            ),
        )
        return len(rows)

    return lake.in_turn(name, add, to=f"follow {source}")
