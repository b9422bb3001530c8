"""Which selections there are, and the rows of one of them.

A table `selected_subset` without the column `selection` holds one selection, the paper's: told here, and nowhere else.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

__all__ = ["NAME_OF_ROW", "PAPER", "rows_of", "selection_names"]

PAPER = "paper"
_NAMED = "selection" in TABLES["selected_subset"].names
NAME_OF_ROW = "selection" if _NAMED else f"'{PAPER}'"  # SQL for the selection of a row of `selected_subset`


def selection_names(lake: Lake, *, version: int | None = None) -> list[str]:
    """The names of the selections in `selected_subset`, now or at that version, sorted."""
    if not _NAMED:
        return [PAPER]
    return sorted(set(lake.read("selected_subset", columns=["selection"], version=version)["selection"].to_pylist()))


def rows_of(
    lake: Lake, selection: str, *, columns: Sequence[str], domain: str | None = None, version: int | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a selection in `selected_subset`, a piece at a time. Raises as `Lake.batches` does."""
    where = {} if domain is None else {"domain": domain}
    if _NAMED:
        where["selection"] = selection
    return lake.batches("selected_subset", columns=columns, where=where, version=version)
