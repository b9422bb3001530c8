"""Which selections there are, and the rows of one of them."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from attninf_assets.store.tables import Lake

__all__ = ["rows_of", "selection_names"]


def selection_names(lake: Lake) -> list[str]:
    """The names of the selections in `selected_subset`, sorted."""
    return sorted({where["selection"] for where in lake.partitions("selected_subset")})


def rows_of(
    lake: Lake, selection: str, *, columns: Sequence[str], domain: str | None = None, version: int | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a selection in `selected_subset`, a piece at a time. Raises as `Lake.batches` does."""
    where = {"selection": selection} | ({} if domain is None else {"domain": domain})
    return lake.batches("selected_subset", columns=columns, where=where, version=version)
