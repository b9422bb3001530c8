"""What readers of a root find in it, piece by piece, and which files are there that nobody asked for."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from attninf_assets.mixture.manifest import MANIFEST, Manifest
from attninf_assets.mixture.verification import verify_training_corpus
from attninf_assets.scores.cost import read_approval
from attninf_assets.selector.model_files import is_intact
from attninf_assets.selector.stored import current_fingerprint, has_selector, pinned_model
from attninf_assets.store.commits import Commit
from attninf_assets.store.damage import DamagedTableError
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import PARTITIONED_BY, TABLES
from attninf_assets.store.tables import Lake
from attninf_assets_tests.torture.scene import Scene

__all__ = ["DAMAGED", "NOTHING", "differing", "leftovers", "seen", "unrecorded_runs"]

NOTHING, DAMAGED = "nothing", "damaged"
_CLOCKS = ("scored_at", "seconds", "committed_at", "scores_version", "device")
_COMMITTED_TOGETHER = PARTITIONED_BY | {
    "scoring_runs": ["domain", "shard", "selector_fingerprint"],
    "selected_subset": ["selection"],
}
_OF_LOG = re.compile(r"tables/[^/]+/_delta_log/(\d{20}(\.checkpoint)?\.(json|parquet)|_last_checkpoint)")
_COPY = re.compile(r"checksums/(?P<table>[^/]+)/[^/]+/(?P<pointer>_last_checkpoint\.)?(?P<version>\d{20})(?P<end>.*)")
# Last, the record that a model at some path was found intact.
_UNIQUE = re.compile(
    r"(?<![0-9a-f])([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![0-9a-f])|tmp[a-z0-9_]{8}"
    r"|(?<=/verified/)[0-9a-f]{64}"
)


def seen(root: Root) -> dict[str, str]:
    """What every piece holds that is replaced in one step: a digest of its rows without what clocks say.

    Where a reader fails, that is a piece which no undisturbed run has.
    """
    try:
        return _seen(root)
    except Exception as error:  # whatever it is, it is what this is to find out
        return {"readers": f"{type(error).__name__}: {error}"}


def _seen(root: Root) -> dict[str, str]:
    lake = Lake(root)
    pieces: dict[str, str] = {}
    for name in TABLES:
        pieces |= _seen_of_table(lake, name)
    if root.exists(MANIFEST):
        faults = verify_training_corpus(root).faults
        pieces["training corpus"] = "; ".join(faults) or Manifest.read(root).content_digest
    if root.exists("selectors/model.json"):
        pinned = pinned_model(root)
        intact = is_intact(root, pinned.directory)
        pieces["model in use"] = f"{pinned.digests.model}, {'intact' if intact else DAMAGED}"
    if has_selector(root):
        pieces["selector in use"] = fingerprint = current_fingerprint(root)
        if (approval := read_approval(root, fingerprint)) is not None:
            pieces["preview"] = f"{approval.approved}, {approval.estimate}"
    return pieces


def _seen_of_table(lake: Lake, name: str) -> dict[str, str]:
    try:
        return _digests(name, _rows(lake, name, {}))
    except DamagedTableError:
        if not PARTITIONED_BY[name]:
            return {name: DAMAGED}
    snapshot = lake.snapshot(name)
    assert snapshot is not None
    pieces: dict[str, str] = {}
    for where in snapshot.files.select(PARTITIONED_BY[name]).group_by(PARTITIONED_BY[name]).aggregate([]).to_pylist():
        try:
            pieces |= _digests(name, _rows(lake, name, where))
        except DamagedTableError:
            pieces[" ".join([name, *where.values()])] = DAMAGED
    return pieces


def _rows(lake: Lake, name: str, where: Mapping[str, str]) -> pl.DataFrame:
    rows = pl.from_arrow(lake.read(name, where=where))
    assert isinstance(rows, pl.DataFrame)
    if name == "scoring_runs":  # how many of the documents a killed run had scored is not the question
        counted = pl.col("n_scored") + pl.col("n_resumed") + pl.col("n_reused")
        rows = rows.select("domain", "shard", "selector_fingerprint", n=counted)
    return rows.drop(_CLOCKS, strict=False).with_columns(pl.col(pl.Float64).round(9))


def _digests(name: str, rows: pl.DataFrame) -> dict[str, str]:
    together = _COMMITTED_TOGETHER.get(name)
    groups = rows.group_by(together) if together else [((), rows)]
    return {
        " ".join([name, *map(str, of)]): hashlib.sha256(repr(sorted(group.rows(), key=repr)).encode()).hexdigest()
        for of, group in groups
        if len(group)
    }


def differing(found: Mapping[str, str], *allowed: Mapping[str, str], also: frozenset[str] = frozenset()) -> list[str]:
    """Which pieces are in none of the states that are allowed."""
    wrong = []
    for piece in sorted(found.keys() | {name for one in allowed for name in one}):
        is_now = found.get(piece, NOTHING)
        if is_now not in {one.get(piece, NOTHING) for one in allowed} | also:
            wrong.append(f"{piece} is {is_now}, not {' or '.join(one.get(piece, NOTHING) for one in allowed)}")
    return wrong


def unrecorded_runs(root: Root) -> list[str]:
    """Commits of scores that note what they cost, and have not exactly one row in `scoring_runs`."""
    lake = Lake(root)
    noted = []
    for version in range((lake.version("scores") or -1) + 1):
        commit = Commit.read(root, "scores", version)
        if commit is not None and any(name.startswith("attninf.scoring_run") for name in commit.info):
            noted.append(version)
    recorded = sorted(lake.read("scoring_runs")["scores_version"].to_pylist())
    return [] if [v for v in recorded if v in noted] == noted else [f"runs recorded {recorded}, committed {noted}"]


def leftovers(scene: Scene) -> dict[str, str]:
    """Everything that is there and is no file that a table's newest version or its log is made of, nor a log's copy.

    What names are drawn at random are told by their shape: two undisturbed runs leave the same shapes.
    """
    root, lake = scene.root, scene.lake
    named = {
        f"tables/{name}/{file.removeprefix(root.table_uri(name) + '/')}" for name in TABLES for file in lake.files(name)
    }
    files = set(scene.files())
    of_log = {path for path in files if _OF_LOG.fullmatch(path) or _copied_from(path) in files}
    found = {_shape(path): path for path in files - named - of_log}
    if root.is_local:
        found |= {_shape(path): path for path in _empty_directories(Path(root.uri)) if not path.startswith("tables/")}
    for directory, prefix in ((scene.temporary, "TMPDIR"), (scene.place / "home", "HOME")):
        paths = [path.relative_to(directory) for path in directory.rglob("*") if path.is_file()]
        empty = [Path(path) for path in _empty_directories(directory)]
        found |= {_shape(f"{prefix}/{path}"): f"{prefix}/{path}" for path in [*paths, *empty]}
    return found


def _copied_from(path: str) -> str:
    """The file of a log that this is a copy of; nothing where it is no copy."""
    match = _COPY.fullmatch(path)
    if match is None:
        return ""
    end = ".checkpoint.parquet" if match["pointer"] else match["end"]  # a pointer is copied with its checkpoint
    return f"tables/{match['table']}/_delta_log/{match['version']}{end}"


def _empty_directories(top: Path) -> Iterator[str]:
    for directory, below, files in os.walk(top):
        if not below and not files and Path(directory) != top:
            yield str(Path(directory).relative_to(top)) + "/"


def _shape(path: str) -> str:
    return _UNIQUE.sub("*", path)
