"""A selection that is no longer defined, taken out of the tables."""

from collections.abc import Collection, Sequence

from attninf_assets.selection.selections_file import Selections
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

__all__ = ["retire_selection", "selections_to_retire", "stored_selections"]

_TABLES = ("selected_subset", "thresholds")  # in this order: thresholds without a selection are what is half retired


def stored_selections(lake: Lake) -> set[str]:
    """The names of the selections of which the tables hold rows."""
    return {partition["selection"] for name in _TABLES for partition in lake.partitions(name)}


def selections_to_retire(wanted: Sequence[str], *, known: Collection[str], selections: Selections) -> list[str]:
    """The names to retire: those wanted, or all that are known and not defined, sorted.

    Raises ValueError naming one that is still defined, or that nobody knows.
    """
    for name in wanted:
        if name in selections.definitions:
            raise ValueError(f"selection {name!r}: {selections.place} defines it; take it out of there first")
        if name not in known:
            raise ValueError(f"selection {name!r}: nothing of it is stored and it has no partition")
    return sorted(set(wanted) or set(known) - set(selections.definitions))


def retire_selection(lake: Lake, name: str) -> int:
    """Take the selection's rows out of the tables; returns how many documents it had."""
    where = {"selection": name}
    n_selected = lake.count("selected_subset", where=where)
    for table in _TABLES:
        if lake.partitions(table, where=where):
            lake.replace(table, TABLES[table].empty_table(), where=where)
    return n_selected
