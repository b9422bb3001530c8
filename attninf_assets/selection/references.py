"""Selections as a person names them: by name, version or selector, under this root or another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from attninf_assets.corpus.printable import shortened
from attninf_assets.selection.named import rows_of, selection_names
from attninf_assets.selection.scored import nearest, require_lake
from attninf_assets.store.tables import Lake

__all__ = ["SelectionAt", "find_selection", "selection_at"]

_FORM = re.compile(
    r"(?:(?P<root>.+)::)?(?P<name>[^@:]+?)(?:@v(?P<version>\d{1,15})|@fingerprint:(?P<fingerprint>[0-9a-f]+))?"
)


@dataclass(frozen=True)
class SelectionAt:
    """A selection as it is at one version of the table `selected_subset`, which holds some of it."""

    lake: Lake
    name: str
    version: int
    selector_fingerprint: str

    def __str__(self) -> str:
        return f"{self.name}@v{self.version} by selector {self.selector_fingerprint[:12]}, {self.lake.root.uri}"


def find_selection(text: str, *, open_lake: Callable[[str | None], Lake]) -> SelectionAt:
    """The selection that `[ROOT::]NAME[@vVERSION|@fingerprint:PREFIX]` names; the newest where no version is said.

    `open_lake` gives the lake under a root, and the usual one for None. With a fingerprint it is the newest version by
    such a selector that can still be read. Raises ValueError where the text is not of that form, the root is no lake,
    there is no such selection, and the version is none that can be read.
    """
    said = _FORM.fullmatch(text)
    if said is None:
        raise ValueError(
            f"{shortened(text)!r} names no selection: expected NAME, NAME@v12 or NAME@fingerprint:0a1b, "
            "after ROOT:: where it lies under another root"
        )
    lake, name = open_lake(said["root"]), said["name"]
    require_lake(lake)
    newest = lake.version("selected_subset")
    if newest is None:
        raise ValueError(f"{lake.root.uri}: nothing is selected yet: materialize selected_subset first")
    if name not in (known := selection_names(lake)):
        raise ValueError(f"{lake.root.uri}: no selection {shortened(name)!r}; {nearest(name, known)}")
    if said["fingerprint"] is not None:
        return _by_selector(lake, name, said["fingerprint"], newest)
    return selection_at(lake, name, newest if said["version"] is None else int(said["version"]))


def selection_at(lake: Lake, name: str, version: int) -> SelectionAt:
    """The selection at that version. Raises ValueError where it cannot be read any more, or holds nothing."""
    found = _read(lake, name, version)
    if found is None:
        raise ValueError(f"{lake.root.uri}: selection {name} holds no document at version {version}")
    return found


def _read(lake: Lake, name: str, version: int) -> SelectionAt | None:
    for batch in rows_of(lake, name, columns=["selector_fingerprint"], version=version):
        if len(batch):
            return SelectionAt(lake, name, version, batch["selector_fingerprint"][0].as_py())
    return None


def _by_selector(lake: Lake, name: str, prefix: str, newest: int) -> SelectionAt:
    seen: dict[str, None] = {}
    for one in _earlier(lake, name, newest):
        if one.selector_fingerprint.startswith(prefix):
            return one
        seen[one.selector_fingerprint[:12]] = None
    raise ValueError(
        f"{lake.root.uri}: no version of {name} that can still be read is by a selector {prefix}…; there are those by "
        f"{', '.join(seen) or 'none'}"
    )


def _earlier(lake: Lake, name: str, newest: int) -> Iterator[SelectionAt]:
    """The selection at every version that can be read, from the newest on."""
    for version in range(newest, -1, -1):
        try:
            found = _read(lake, name, version)
        except ValueError:  # vacuumed, as all before it are
            return
        if found is not None:
            yield found
