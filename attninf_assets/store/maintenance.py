"""Keeping the lake healthy beside running backfills: compaction, vacuum and the sweep of what killed runs left.

Nothing that is younger than the retention is ever deleted, by the storage's own clock. So whatever a run has written
and not yet committed is safe as long as it commits within that time, and old versions stay readable that long.
"""

import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deltalake import DeltaTable

from attninf_assets.store.durability import make_durable
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.scratch import UNFINISHED, sweep_dead, sweep_scratch
from attninf_assets.store.tables import COMPRESSED, Lake

__all__ = ["RETENTION", "SHORTEST_RETENTION", "Swept", "TableCare", "maintain", "sweep"]

RETENTION = timedelta(days=7)
SHORTEST_RETENTION = timedelta(days=1)  # a writer needs far less from its first file to its commit
_LARGEST_SKEW = timedelta(hours=1)

_WRITTEN_TO = (
    "tables", "staging", "selectors", "training_corpus", "maintenance", "checksums", "damaged", "previews",
)  # fmt: skip
_HALF_WRITTEN = re.compile(r".*\.parquet#\d+|.*/\.[^/]+\.tmp|maintenance/[0-9a-f]{32}")  # by delta-rs; by Root; here
_UNPUBLISHED = re.compile(rf"(selectors/(?:{re.escape(UNFINISHED)}|\.[0-9a-f]+\.)[^/]+)/.+")  # as today; until 0.1.0


@dataclass(frozen=True)
class TableCare:
    """What was done for one table."""

    table: str
    files_compacted: int  # small files that were merged into fewer
    files_vacuumed: int  # no version within the retention needs them
    version: int


@dataclass(frozen=True)
class Swept:
    """What killed runs had left: paths under the root, and on this host."""

    half_written: tuple[str, ...]
    staged: tuple[str, ...]  # directories of scores that no run will resume
    scratch: tuple[str, ...]  # directories in the temporary one of this host


def maintain(
    lake: Lake,
    *,
    retention: timedelta = RETENTION,
    selector_fingerprint: str | None,
    keep_staged: bool = False,
    spare: Collection[str] = (),
) -> tuple[list[TableCare], Swept]:
    """Compact, vacuum and checkpoint every table, then sweep; `selector_fingerprint` is the selector in use, if any.

    Staged scores are swept but for those of the selector in use, or not at all where `keep_staged` says so.
    Tables to `spare` are left as they are: merging a damaged file would make its damage a sound file's contents.
    Raises ValueError for a retention that could touch what a running backfill is about to commit, and RuntimeError
    where this machine's clock and the storage's differ so much that ages mean nothing.
    """
    if retention < SHORTEST_RETENTION:
        raise ValueError(f"retention {retention}: at least {SHORTEST_RETENTION}, or running backfills would lose files")
    now = _clock_of(lake.root)
    if abs(now - datetime.now(UTC)) > _LARGEST_SKEW:
        raise RuntimeError(
            f"{lake.root.uri}: the storage's clock says {now:%Y-%m-%d %H:%M}, this machine's "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; nothing is deleted before they agree"
        )
    cared = [_care_for(lake, name, retention) for name in TABLES if name not in spare and lake.exists(name)]
    swept = sweep(
        lake.root, older_than=now - retention, selector_fingerprint=selector_fingerprint, keep_staged=keep_staged
    )
    return cared, swept


def sweep(root: Root, *, older_than: datetime, selector_fingerprint: str | None, keep_staged: bool = False) -> Swept:
    """Delete half-written files, and staged scores of selectors not in use, that are older than `older_than`.

    Whatever its age, a model that a dead process of this host was about to put under a local root is deleted, and what
    dead processes have left in this host's temporary directory.
    """
    half_written = [
        path
        for directory in _WRITTEN_TO
        for path, modified in root.modified(directory).items()
        if _HALF_WRITTEN.fullmatch(path) and modified < older_than
    ]
    staged = [
        directory
        for directory, modified in _directories(root, "staging", re.compile(r"(.+)/[^/]+")).items()
        if modified < older_than and directory.split("/")[1] != selector_fingerprint and not keep_staged
    ]
    unpublished = _directories(root, "selectors", _UNPUBLISHED)
    half_written += [directory for directory, modified in unpublished.items() if modified < older_than]
    for path in [*half_written, *staged]:
        root.delete(path)
    if root.is_local:
        dead = sweep_dead(Path(root.uri) / "selectors", UNFINISHED)
        half_written += [f"selectors/{directory.name}" for directory in dead]
    scratch = map(str, sweep_scratch())
    return Swept(tuple(sorted(half_written)), tuple(sorted(staged)), tuple(scratch))


def _directories(root: Root, below: str, named: re.Pattern[str]) -> dict[str, datetime]:
    """Those that `named` finds in the paths of files, and when the youngest file in each was written."""
    youngest: dict[str, datetime] = {}
    for path, modified in root.modified(below).items():
        if (match := named.fullmatch(path)) is not None:
            youngest[match[1]] = max(modified, youngest.get(match[1], modified))
    return youngest


def _care_for(lake: Lake, name: str, retention: timedelta) -> TableCare:
    def compact(table: DeltaTable) -> int:
        return table.optimize.compact(writer_properties=COMPRESSED)["numFilesRemoved"]

    def vacuum(table: DeltaTable) -> tuple[int, int]:
        hours = int(retention / timedelta(hours=1))
        gone = table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)
        table.create_checkpoint()
        make_durable(lake.root, name, [table.version()])  # before the commits go that it stands for
        table.cleanup_metadata()
        return len(gone), table.version()

    merged = lake.in_turn(name, compact, to="compact the table")
    vacuumed, version = lake.in_turn(name, vacuum, to="vacuum the table")
    return TableCare(name, merged, vacuumed, version)


def _clock_of(root: Root) -> datetime:
    """The storage's time, as it stamps a file that is written now."""
    path = f"maintenance/{uuid.uuid4().hex}"
    root.write_bytes(path, b"")
    stamped = root.modified("maintenance")[path]
    root.delete(path)
    return stamped
