"""Flipped bits: one in one file under a root that has everything in it, noticed, and mended by the named commands.

python -m attninf_assets_tests.torture.flips --count 1000

An attempt draws a file, every file alike, and a bit of it. The flip must be noticed by the scrub, or whatever reads the
file must refuse it. Then `attninf repair --apply` and the commands it names must bring back what the tables, the
training corpus, the pinned model and the selector said before, and leave nothing damaged.
"""

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from attninf_assets.cli import app
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets.scores.staging import STAGED_SCORES, StagedScores
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.maintenance import maintain
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets.upkeep.inspection import find_damage
from attninf_assets_tests.support.pipeline import (
    PROBES,
    SELECTION,
    SELECTOR,
    SHARDS,
    Pipeline,
    backfilled,
    build_pipeline,
)
from attninf_assets_tests.torture.attempts import Attempt, Outcome, attempts, seeds_parser, told

_CLOCKS = ["scored_at", "seconds", "committed_at"]
_IN_DOUBT = "scoring_runs"  # what a damaged file of it held is lost, and every repair of scores adds to it


@dataclass(frozen=True)
class Material:
    """A root with everything in it, and what it says."""

    pipeline: Pipeline
    said: dict[str, object]
    files: tuple[str, ...]  # below the root


@contextmanager
def material(directory: Path) -> Iterator[Material]:
    """Everything materialized: several commits, a checkpoint with more after it, a preview, and a staged chunk."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipeline = build_pipeline(directory / "of", monkeypatch)
        pipeline.run_everything()
        fingerprint = current_fingerprint(pipeline.lake.root)
        maintain(pipeline.lake, selector_fingerprint=fingerprint)
        pipeline.write_shard(SHARDS[2], [f"Something else is in document {number} of it now." for number in range(25)])
        pipeline.run(["raw_corpus"], SHARDS[2])
        pipeline.run(SELECTOR, config=PROBES)  # of the sources as they are now: so that the same probes come again
        fingerprint = current_fingerprint(pipeline.lake.root)
        for key in SHARDS[:2]:
            pipeline.run(["attention_influence_scores"], key)
        pipeline.run(["rescoring_preview"])
        pipeline.run(["attention_influence_scores"], SHARDS[2])
        pipeline.run(["document_features"], SHARDS[2])
        pipeline.run(["near_duplicates"])
        pipeline.run(SELECTION)
        staged = StagedScores(pipeline.lake.root, fingerprint, "letters", "c")
        staged.add(pipeline.lake.read("scores", columns=STAGED_SCORES.names, where={"domain": "letters", "shard": "a"}))
        root = Path(pipeline.lake.root.uri)
        assert find_damage(pipeline.lake, thorough=True) == []
        files = tuple(sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()))
        yield Material(pipeline, what_is_said(pipeline), files)


def what_is_said(pipeline: Pipeline) -> dict[str, object]:
    """The rows of the tables without what clocks said, the selector, and digests of the pinned model and the mix."""
    root = Path(pipeline.lake.root.uri)
    said: dict[str, object] = {"selector": current_fingerprint(pipeline.lake.root)}
    for name in set(TABLES) - {_IN_DOUBT}:
        rows = pipeline.rows(name).drop(_CLOCKS, strict=False)
        said[name] = rows.sort(rows.columns[:4])
    for path in [*root.glob("training_corpus/*"), *root.glob(f"selectors/{64 * '[0-9a-f]'}/*")]:
        said[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return said


def flipped(of: Material, attempt: Attempt) -> Outcome:
    """Flip a bit in a copy of the root, look whether it is noticed, mend it, and compare."""
    dice = attempt.random()
    file = dice.choice(of.files)
    with _harmed(of) as pipeline:
        path = Path(pipeline.lake.root.uri) / file
        data = bytearray(path.read_bytes())
        at, bit = dice.randrange(len(data)), dice.randrange(8)
        data[at] ^= 1 << bit
        path.write_bytes(data)
        where = f"bit {bit} of byte {at} of {len(data)} of {file}"
        found = find_damage(pipeline.lake, thorough=True)
        if file not in [damage.path for damage in found]:
            return Outcome(attempt, _kind(file), f"{where}: not noticed, but {list(map(str, found))} were")
        if others := [damage.path for damage in found if damage.path != file]:
            return Outcome(attempt, _kind(file), f"{where}: {others} are called damaged and are not")
        return Outcome(attempt, _kind(file), _mended(pipeline, of.said, where))


def _mended(pipeline: Pipeline, said: dict[str, object], where: str) -> str:
    """What is wrong after the repair and what it names."""
    repair = CliRunner().invoke(app, ["repair", "--apply"])
    if repair.exit_code != 0:
        return f"{where}: repair ended with {repair.exit_code}: {repair.output} {repair.exception!r}"
    lines = repair.stdout.splitlines()
    assets = [line.rpartition(" ")[2] for line in lines if "dg launch --assets" in line]
    last = ["near_duplicates", *SELECTION]  # these are made of what is backfilled
    try:
        for asset in [asset for asset in assets if asset not in last]:
            pipeline.run([asset], config=PROBES if asset in SELECTOR else None)
        for asset, keys in backfilled(repair.stdout).items():
            for key in keys:
                pipeline.run([asset], key)
        for asset in [asset for asset in last if asset in assets]:
            pipeline.run([asset])
        says = what_is_said(pipeline)
    except Exception as error:
        return f"{where}: what repair named fails: {lines}: {error!r}"
    differing = [what for what in {**said, **says} if not _same(said.get(what), says.get(what))]
    if differing:
        return f"{where}: {differing} are not as they were: {lines}"
    left = find_damage(pipeline.lake, thorough=True)
    return f"{where}: still damaged: {list(map(str, left))}: {lines}" if left else ""


@contextmanager
def _harmed(of: Material) -> Iterator[Pipeline]:
    """The pipeline over a copy of its root, with an instance of its own, until the block ends."""
    with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory(prefix="attninf-flips-") as directory:
        root = Path(directory) / "root"
        shutil.copytree(of.pipeline.lake.root.uri, root)
        monkeypatch.setenv("ATTNINF_ROOT", str(root))
        instance = dg.DagsterInstance.ephemeral()
        instance.add_dynamic_partitions(CORPUS_SHARDS, SHARDS)
        yield replace(of.pipeline, lake=Lake(Root.at(root)), instance=instance)


def _same(one: object, other: object) -> bool:
    if isinstance(one, pl.DataFrame) and isinstance(other, pl.DataFrame):
        return one.equals(other)
    return type(one) is type(other) and one == other


def _kind(file: str) -> str:
    """What sort of file it is, by which outcomes are counted."""
    parts = file.split("/")
    if parts[0] == "tables":
        return f"{parts[1]} log" if parts[2] == "_delta_log" else f"{parts[1]} data"
    if parts[0] == "checksums":
        return "copies of logs" if len(parts) > 2 else "records of checksums"
    if parts[0] == "selectors" and len(parts) == 3 and len(parts[1]) == 64:
        return "pinned model"
    return (
        parts[0] if parts[0] != "training_corpus" else "manifest" if parts[1] == "manifest.json" else "training corpus"
    )


def main() -> int:
    """Flip as often as asked; 1 where anything went wrong."""
    parser = seeds_parser(__doc__, count=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="attninf-flips-") as directory, material(Path(directory)) as of:
        print(f"{len(of.files)} files", flush=True)
        outcomes = (flipped(of, attempt) for attempt in attempts(arguments))
        return min(1, told("attninf_assets_tests.torture.flips", outcomes, say=lambda line: print(line, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
