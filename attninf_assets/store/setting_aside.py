"""Damaged files taken out of their tables, and kept."""

from collections.abc import Sequence

import pyarrow.fs as pafs
from deltalake import DeltaTable

from attninf_assets.store.damage import Damage
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake

__all__ = ["ASIDE", "move_aside", "set_aside"]

ASIDE = "damaged"  # under the root


def set_aside(lake: Lake, name: str, damages: Sequence[Damage]) -> int:
    """Move those files to `damaged/tables/…` under the root, and take them out of the table's newest version.

    The files are not read, and no other file is touched: what Delta commits is that they are gone. An interrupted call
    leaves files that are missing, which is what the next one then mends. Returns the version of the table. Raises
    RuntimeError, with nothing committed, where other files of the table are missing than these.
    """
    expected = {damage.file for damage in damages}
    for file in sorted(expected):
        move_aside(lake.root, f"tables/{name}/{file}")

    def take_out(table: DeltaTable) -> int:
        missing = set(table.repair(dry_run=True)["files_removed"])
        if unexpected := sorted(missing - expected):
            raise RuntimeError(f"{lake.root.table_uri(name)}: {unexpected} are missing as well; look again")
        if missing:
            table.repair()
        return table.version()

    return lake.in_turn(name, take_out, to="take damaged files out of the table")


def move_aside(root: Root, path: str) -> None:
    """Move a file below the root to the same path under `damaged/`; nothing happens if there is none."""
    filesystem, found = root.locate(path)
    if filesystem.get_file_info(found).type != pafs.FileType.File:
        return
    _, kept = root.locate(f"{ASIDE}/{path}")
    if root.is_local:
        filesystem.create_dir(kept.rpartition("/")[0], recursive=True)
    root.move(path, f"{ASIDE}/{path}")
