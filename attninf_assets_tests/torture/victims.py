"""Everything that writes under a root, each as it is done in a process that may be killed."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import cycle
from typing import Any

import dagster as dg
import polars as pl

from attninf_assets import cli
from attninf_assets.corpus.stored_index import index_and_store
from attninf_assets.mixture.manifest import CORPUS_DIRECTORY
from attninf_assets.orchestration.assets import maintenance
from attninf_assets.orchestration.assets.mixture import MixConfig
from attninf_assets.orchestration.assets.preview import PreviewConfig, rescoring_preview
from attninf_assets.orchestration.assets.selector import ProbeConfig, retrieval_heads, retrieval_probes, selector_model
from attninf_assets.orchestration.assets.what_if import score_bands
from attninf_assets.orchestration.automation.retirement import RetirementConfig, retire
from attninf_assets.scores.features.near_duplicates import mark_near_duplicates
from attninf_assets.scores.features.update import update_document_features
from attninf_assets.scores.runs import ScoringRun, complete_scoring_runs
from attninf_assets.scores.staging import StagedScores
from attninf_assets.selector.model_files import local_directory, publish_directory
from attninf_assets.selector.pinning import digest_model
from attninf_assets.selector.stored import current_fingerprint, pinned_model
from attninf_assets.store import maintenance as store_maintenance
from attninf_assets.store.maintenance import Swept, TableCare
from attninf_assets.store.maintenance import maintain as maintain_tables
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.scrub import scrub
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.source_files import landed
from attninf_assets_tests.torture.material import HEADS, MIX, SHARDS, changed, gone, mixed, score, select, shard
from attninf_assets_tests.torture.readers import DAMAGED, NOTHING
from attninf_assets_tests.torture.scene import Scene
from benchmarks.rigs.tables_of_scores import run_of

__all__ = ["VICTIMS", "Victim", "maintain", "nothing"]


def nothing(_: Scene) -> None:
    """Leave the scene as it was built."""


@dataclass(frozen=True)
class Victim:
    """Some work, and the state in which it finds the root."""

    act: Callable[[Scene], None]
    needs: tuple[str, ...]  # of a root where everything was materialized: tables, and files or directories
    before: Callable[[Scene], None] = nothing  # what is done to it first
    between: frozenset[str] = frozenset()  # what readers may find of a piece besides the old and the new
    aged: bool = False  # whether it is about what is older than now
    roots: tuple[str, ...] = ("local", "s3")


def maintain(scene: Scene) -> None:
    """Maintain the lake as if all that is there were older than the retention. Raises where something is damaged."""
    store_maintenance.SHORTEST_RETENTION = timedelta(0)
    maintenance.maintain = partial(_maintained, retention_asked=timedelta(0))
    done = maintenance.lake_maintenance(
        _context(scene), config=maintenance.MaintenanceConfig(), lake=scene.resources().lake
    )
    assert isinstance(done, dg.MaterializeResult)
    (check,) = done.check_results or ()
    if not check.passed:
        raise AssertionError(f"damaged: {check.metadata['damaged'].value}")


def _maintained(
    lake: Lake, *, retention: timedelta, retention_asked: timedelta, **rest: Any
) -> tuple[list[TableCare], Swept]:
    return maintain_tables(lake, retention=retention_asked, **rest)


def _context(scene: Scene) -> dg.AssetExecutionContext:
    return dg.build_asset_context(instance=scene.instance())


def _index_changed(scene: Scene) -> None:
    index_and_store(scene.lake, landed(changed(scene)))


def _index_first(scene: Scene) -> None:
    index_and_store(scene.lake, landed(shard(scene, "notes.first")))


def _score_changed(scene: Scene) -> None:
    score(scene, changed(scene))


def _score_two(scene: Scene) -> None:
    for key in SHARDS[:2]:
        score(scene, shard(scene, key))


def _measure_changed(scene: Scene) -> None:
    update_document_features(scene.lake, changed(scene))


def _changed_and_measured(scene: Scene) -> None:
    """A shard in which documents have near duplicates by now, of which nothing is said yet."""
    _index_changed(scene)
    _measure_changed(scene)


def _mark(scene: Scene) -> None:
    mark_near_duplicates(scene.lake, "letters")


def _stage_all(scene: Scene) -> None:
    """Stage what is committed, as a run that was killed after its commit leaves it."""
    fingerprint = current_fingerprint(scene.root)
    for key in SHARDS[:2]:
        domain, _, name = key.partition(".")
        rows = scene.lake.read("scores", where={"domain": domain, "shard": name})
        for begin in range(0, len(rows), 5):
            StagedScores(scene.root, fingerprint, domain, name).add(rows.slice(begin, 5))


def _shards_gone(scene: Scene) -> None:
    for name in ("gone", "lost"):
        index_and_store(scene.lake, landed(gone(scene, name)))
        score(scene, gone(scene, name))
        update_document_features(scene.lake, gone(scene, name))


def _retire(scene: Scene) -> None:
    of = scene.resources()
    context = dg.build_op_context(instance=scene.instance())
    retire(context, config=RetirementConfig(), corpus=of.corpus, lake=of.lake)


def _runs_to_follow(scene: Scene) -> None:
    """Scores committed by runs that were killed before they added their rows."""
    for number in range(4):
        where = {"domain": "letters", "shard": f"followed{number}"}
        rows = pl.from_arrow(scene.lake.read("scores", where={"domain": "letters", "shard": "b"}))
        assert isinstance(rows, pl.DataFrame)
        rows = rows.with_columns(shard=pl.lit(where["shard"]))
        cost = ScoringRun(
            **where,
            selector_fingerprint=current_fingerprint(scene.root),
            n_scored=len(rows),
            n_resumed=0,
            n_reused=0,
            tokens_scored=1,
            seconds=1.0,
            device="cpu",
        )
        scene.lake.replace("scores", rows.to_arrow().cast(TABLES["scores"]), where=where, note=cost.note())


def _follow(scene: Scene) -> None:
    complete_scoring_runs(scene.lake)


def _append(scene: Scene) -> None:
    for number in range(4):
        rows = run_of("letters", f"appended{number}", number)
        scene.lake.append("scoring_runs", rows, writer="torture", number=number)


def _other_scores(scene: Scene) -> None:
    where = {"domain": "letters", "shard": "b"}
    rows = pl.from_arrow(scene.lake.read("scores", where=where))
    assert isinstance(rows, pl.DataFrame)
    rows = rows.with_columns(score=-pl.col("score"))
    scene.lake.replace("scores", rows.to_arrow().cast(TABLES["scores"]), where=where)


def _select(scene: Scene) -> None:
    select(scene, "lean", "paper")


def _bands(scene: Scene) -> None:
    score_bands(_context(scene), lake=scene.resources().lake)


def _mix(scene: Scene) -> None:
    mixed(scene, MixConfig(seed=1, rows_per_file=20))


def _damaged_mix(scene: Scene) -> None:
    first, second, *_ = [path for path in scene.root.list(CORPUS_DIRECTORY) if path.endswith(".parquet")]
    scene.root.write_bytes(first, scene.root.read_bytes(first)[:-9])
    scene.root.delete(second)


def _mix_again(scene: Scene) -> None:
    mixed(scene, MIX)


def _many_commits(scene: Scene) -> None:
    """Small files to merge, old ones to delete, and what killed runs have left."""
    for number in range(6):
        rows = run_of("letters", f"appended{number}", number)
        scene.lake.append("scoring_runs", rows, writer="torture", number=number)
    for shards in (SHARDS, reversed(SHARDS)):
        for key in shards:
            domain, _, name = key.partition(".")
            where = {"domain": domain, "shard": name}
            scene.lake.replace("documents", scene.lake.read("documents", where=where), where=where)
    StagedScores(scene.root, "an-old-selector", "letters", "a").add(scene.lake.read("scores"))
    scene.root.write_bytes("tables/scores/domain=letters/shard=a/part.zstd.parquet#1", b"half")
    scene.root.write_bytes(f"maintenance/{'0' * 32}", b"")


def _damages(scene: Scene) -> None:
    """A file of every table flipped, emptied or missing, each recorded as sound before."""
    scrub(scene.lake)
    for name, how in zip(sorted(TABLES), cycle(("flip", "empty", "miss"))):
        table = scene.root.table_uri(name)
        path = f"tables/{name}/{scene.lake.files(name)[0].removeprefix(table + '/')}"
        data = scene.root.read_bytes(path)
        if how == "miss":
            scene.root.delete(path)
        else:
            middle = len(data) // 3
            flipped = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
            scene.root.write_bytes(path, flipped if how == "flip" else b"")


def _repair(_: Scene) -> None:
    cli.repair(root=None, apply=True)


def _pin(source: str, scene: Scene) -> None:
    of = scene.resources()
    selector_model(_context(scene), selector=of.selector.model_copy(update={"source": source}), lake=of.lake)


def _pin_another(scene: Scene) -> None:
    _pin(str(scene.material / "another_model"), scene)


def _pin_gguf(scene: Scene) -> None:
    _pin(str(scene.material / "model.gguf"), scene)


def _damaged_pin(scene: Scene) -> None:
    where = pinned_model(scene.root).directory
    weights = bytearray(scene.root.read_bytes(f"{where}/model.safetensors"))
    weights[-9] ^= 1
    scene.root.write_bytes(f"{where}/model.safetensors", bytes(weights))
    scene.root.delete(f"{where}/tokenizer.json")
    scene.root.write_bytes(f"{where}/model-of-nobody.safetensors", b"stray")


def _pin_again(scene: Scene) -> None:
    _pin(str(scene.material / "model"), scene)


def _publish(scene: Scene) -> None:
    model = scene.material / "another_model"
    publish_directory(scene.root, model, f"selectors/{digest_model(model).model}")


def _fetch(scene: Scene) -> None:
    of = scene.resources()
    local_directory(scene.root, pinned_model(scene.root).directory, cache=of.lake.model_cache())


def _nothing_fetched(scene: Scene) -> None:
    for path in sorted((scene.place / "home").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def _build_probes(scene: Scene) -> None:
    of = scene.resources()
    config = ProbeConfig(n_probes=2, probe_tokens=900, seed=1)
    retrieval_probes(_context(scene), config=config, selector=of.selector, corpus=of.corpus, lake=of.lake)


def _never_detected(scene: Scene) -> None:
    """The detection stays known, so that it costs nothing; what is made of it is not there."""
    scene.root.delete("tables/head_scores")
    scene.root.delete("selectors/current.json")


def _nothing_detected(scene: Scene) -> None:
    """Heads are to be found anew."""
    _never_detected(scene)
    scene.root.delete("selectors/detections")


def _detect(scene: Scene) -> None:
    of = scene.resources()
    retrieval_heads(_context(scene), config=HEADS, corpus=of.corpus, lake=of.lake)


def _preview(scene: Scene) -> None:
    of = scene.resources()
    rescoring_preview(_context(scene), config=PreviewConfig(), lake=of.lake, cost=of.cost)


_SELECTOR = ("selectors/current.json",)
_INDEX = ("documents", "quarantine")
_SCORES = (*_INDEX, "scores", "scoring_runs", *_SELECTOR)
_FEATURES = (*_INDEX, "document_features")
_SELECTION = ("documents", "scores", "scoring_runs", "thresholds", "selected_subset", *_SELECTOR)
_MIX = (*_SELECTION, CORPUS_DIRECTORY)
_MODEL = ("selectors",)

VICTIMS = {
    "index": Victim(_index_changed, _INDEX),
    "first index": Victim(_index_first, ()),
    "scores": Victim(_score_changed, _SCORES, _index_changed),
    "first scores": Victim(_score_two, (*_INDEX, *_SELECTOR)),
    "clear": Victim(_score_two, _SCORES, _stage_all),
    "retire": Victim(_retire, (*_SCORES, "document_features"), _shards_gone),
    "append": Victim(_append, ("scoring_runs",)),
    "follow": Victim(_follow, ("scores", "scoring_runs", *_SELECTOR), _runs_to_follow),
    "first follow": Victim(_follow, ("scores", *_SELECTOR), _runs_to_follow),
    "selection": Victim(_select, _SELECTION, _other_scores),
    "first selection": Victim(_select, ("documents", "scores", "scoring_runs", *_SELECTOR)),
    "bands": Victim(_bands, ("scores", "scoring_runs", "score_bands", *_SELECTOR), _other_scores),
    "mix": Victim(_mix, _MIX),
    "damaged mix": Victim(_mix_again, _MIX, _damaged_mix),
    "maintenance": Victim(maintain, _SCORES, _many_commits, aged=True),
    "repair": Victim(
        _repair, (*TABLES, *_SELECTOR), _damages, frozenset({NOTHING, DAMAGED})
    ),  # nothing reads a file that is set aside
    "pin": Victim(_pin_another, _MODEL),
    "pin gguf": Victim(_pin_gguf, _MODEL),
    "damaged pin": Victim(_pin_again, _MODEL, _damaged_pin),
    "publish": Victim(_publish, ()),
    "fetch": Victim(_fetch, _MODEL, _nothing_fetched, roots=("s3",)),
    "probes": Victim(_build_probes, ("retrieval_probes", *_MODEL)),
    "heads": Victim(_detect, ("retrieval_probes", "head_scores", *_MODEL), _never_detected),
    "detection": Victim(_detect, ("retrieval_probes", "head_scores", *_MODEL), _nothing_detected),
    "preview": Victim(_preview, (*_SCORES, *_MODEL), _index_changed),
    "features": Victim(_measure_changed, _FEATURES, _index_changed),
    "near duplicates": Victim(_mark, _FEATURES, _changed_and_measured),
}
