"""Which selections there are, and which of them a row of a table is of."""

from attninf_assets.store.schemas import TABLES

__all__ = ["NAME_OF_ROW", "PAPER"]

PAPER = "paper"
# SQL for the selection of a row of `selected_subset`. Where the table has no names yet, all of it is the paper's.
NAME_OF_ROW = "selection" if "selection" in TABLES["selected_subset"].names else f"'{PAPER}'"
