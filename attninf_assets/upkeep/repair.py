"""Damage under the root mended: what is known is put back, the rest is set aside and made again."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from attninf_assets.corpus.documents import LandedShard
from attninf_assets.corpus.stored_index import index_and_store, index_waiting
from attninf_assets.mixture.manifest import MANIFEST
from attninf_assets.selector.model_files import list_of
from attninf_assets.selector.scrub import model_of
from attninf_assets.selector.stored import models_in_use
from attninf_assets.store.compatibility import WRITTEN_BY
from attninf_assets.store.damage import Damage
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.log_copies import LOG
from attninf_assets.store.log_scrub import TableLog
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.setting_aside import ASIDE, move_aside, set_aside
from attninf_assets.store.tables import Lake

__all__ = ["RepairPlan", "mend", "plan_of", "reindex"]

_LEFT = f"{ASIDE}/to_index.json"  # under the root, while a repair is under way
_INDEX = ("documents", "quarantine")  # made together, from a shard's source file
_FEATURES = "document_features"
_ASSETS = (
    "selector_model", "retrieval_probes", "retrieval_heads", "rescoring_preview", "near_duplicates",
    "score_thresholds", "selected_subset", "score_bands", "training_corpus",
)  # fmt: skip  # in the order in which they are made
_MADE_BY = {"model.json": "selector_model", "current.json": "retrieval_heads"}  # under `selectors/`, written anew


@dataclass(frozen=True)
class RepairPlan:
    """What mends some damage: what a repair does itself, and what is to be launched after it."""

    put_back: tuple[Damage, ...]  # files of logs, as they were copied
    take_out: tuple[Damage, ...]  # files of tables
    aside: tuple[Damage, ...]  # other files without which the system makes do, or that it makes again by itself
    reindex: tuple[str, ...]  # keys of shards
    rescore: tuple[str, ...]  # keys of shards
    remeasure: tuple[str, ...]  # keys of shards whose documents' features are to be computed
    materialize: tuple[str, ...]  # assets, each with its partition where that is a selection
    lost: tuple[Damage, ...]  # records that nothing makes again, and files that only earlier versions have
    beyond: tuple[Damage, ...]  # files of logs of which no copy was kept

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return self == RepairPlan((), (), (), (), (), (), (), (), ())

    def told(self, *, done: bool) -> Iterator[str]:
        """The plan in words, a line for each thing that a repair does, or with `done` has done, and that is left."""
        would = "" if done else "would be "
        for damage in self.put_back:
            yield f"{damage.path} {'was' if done else 'would be'} put back as it was copied; then look again"
        if n := len(self.take_out):
            yield f"{n:,} files {would}set aside under {ASIDE}/ and taken out of their tables"
        for directory, damages in groupby(self.aside, key=lambda damage: damage.path.split("/")[0]):
            yield f"{len(list(damages)):,} files of {directory}/ {would}set aside under {ASIDE}/"
        for key in self.reindex:
            yield f"{key} {'is' if done else 'would be'} indexed again from its source"
        if self.rescore:
            yield f"then score what is missing: attninf backfill {' '.join(self.rescore)}"
        if self.remeasure:
            yield f"then compute features: attninf backfill --asset document_features {' '.join(self.remeasure)}"
        for asset in self.materialize:
            yield f"then make it again: dg launch --assets {asset}"
        for damage in self.lost:
            what = (
                "only earlier versions had it" if damage.of_earlier_versions else "only what scoring cost is told by it"
            )
            yield f"{damage.path}: what it held is lost; {what}"
        for damage in self.beyond:
            yield (
                f"{damage.table}: its log is damaged, and no copy was kept: put {damage.file} back from a backup, or "
                f"move tables/{damage.table} away and run: dg launch --assets {WRITTEN_BY[damage.table or '']}"
            )


def plan_of(lake: Lake, damages: Iterable[Damage]) -> RepairPlan:
    """What mends them, and what is left of a repair that was interrupted."""
    found = sorted(damages, key=lambda damage: damage.path)
    of_logs = [damage for damage in found if damage.path.startswith(f"tables/{damage.table}/{LOG}")]
    put_back = [damage for damage in of_logs if TableLog.read(lake.root, damage.table or "").can_put_back(damage)]
    of_data = [damage for damage in found if damage.path.startswith("tables/") and damage not in of_logs]
    newest = [damage for damage in of_data if not damage.of_earlier_versions]
    whole = [damage for damage in newest if damage.table not in {*_INDEX, "scores", "scoring_runs", _FEATURES}]
    others = [damage for damage in found if not damage.path.startswith("tables/")]
    in_use = models_in_use(lake.root) if any(damage.path.startswith("selectors/") for damage in others) else frozenset()
    made = {damage.path: _maker(damage.path, in_use) for damage in others}
    wanted = {asset for asset in made.values() if asset} | {_launched(damage) for damage in whole}
    remeasure = _keys([damage for damage in newest if damage.table == _FEATURES])
    wanted |= {"near_duplicates"} if remeasure else set()
    return RepairPlan(
        put_back=tuple(put_back),
        take_out=tuple(of_data),
        aside=tuple(
            part for damage in others if not made[damage.path] or _is_in_the_way(damage.path) for part in _parts(damage)
        ),
        reindex=_keys([damage for damage in newest if damage.table in _INDEX], *_left(lake)),
        rescore=_keys([damage for damage in newest if damage.table == "scores"]),
        remeasure=remeasure,
        materialize=tuple(sorted(wanted, key=lambda launched: (_ASSETS.index(launched.split()[0]), launched))),
        lost=tuple(damage for damage in of_data if damage.of_earlier_versions or damage.table == "scoring_runs"),
        beyond=tuple(damage for damage in of_logs if damage not in put_back),
    )


def mend(lake: Lake, plan: RepairPlan) -> None:
    """Put back and set aside what the plan says; what was in damaged files of tables is in no table then.

    Where the plan puts something back, nobody knows yet what else is damaged: look again. Raises as `set_aside` does.
    """
    for damage in plan.put_back:
        TableLog.read(lake.root, damage.table or "").put_back(damage)
    if plan.reindex:
        lake.root.write_bytes(_LEFT, json.dumps(plan.reindex).encode())
    for name in TABLES:
        if of_table := [damage for damage in plan.take_out if damage.table == name]:
            set_aside(lake, name, of_table)
    for damage in plan.aside:
        move_aside(lake.root, damage.path)


def reindex(
    lake: Lake, plan: RepairPlan, *, find: Callable[[str], LandedShard], storage_options: StorageOptions = NO_OPTIONS
) -> dict[str, Exception]:
    """Index the plan's shards again from their source files; returns why one could not be, by its key.

    `find` gives the shard of a key and raises ValueError where it is no longer there.
    """
    failed: dict[str, Exception] = {}
    for key in plan.reindex:
        try:
            index_and_store(lake, find(key), storage_options=storage_options)
        except (ValueError, OSError) as error:  # one source that is gone is no reason to leave the other shards
            failed[key] = error
    for key in plan.reindex:
        index_waiting(lake, key, find=find, storage_options=storage_options)
    lake.root.delete(_LEFT)
    return failed


def _launched(damage: Damage) -> str:
    """The asset that makes a table's damaged part anew, as it is launched."""
    selection = (damage.partition or {}).get("selection")
    asset = WRITTEN_BY[damage.table or ""]
    return asset if selection is None else f"{asset} --partition {selection}"


def _maker(path: str, in_use: frozenset[str] | None) -> str | None:
    """The asset that writes a file anew which is of no table; None where it is set aside.

    What `models_in_use` knows of is `in_use`; None, if that itself is damaged, is any model.
    """
    directory, _, rest = path.partition("/")
    if directory in {"training_corpus", "previews"}:
        return {"training_corpus": "training_corpus", "previews": "rescoring_preview"}[directory]
    if directory != "selectors":
        return None
    digest = model_of(path) or (
        rest.removeprefix("files/").removesuffix(".json") if rest.startswith("files/") else None
    )
    if digest is not None:
        return "selector_model" if in_use is None or digest in in_use else None
    return _MADE_BY.get(rest)


def _is_in_the_way(path: str) -> bool:
    """Whether the asset that would write the file anew would take it for what it was, or not run for it."""
    return path.startswith(("training_corpus/", "previews/")) and path != MANIFEST


def _parts(damage: Damage) -> list[Damage]:
    """What is set aside with a file: the list of a model that is not whole any more."""
    digest = model_of(damage.path)
    if digest is None:
        return [damage]
    return [damage, Damage(list_of(f"selectors/{digest}"), "it lists files of a damaged model that is not in use")]


def _left(lake: Lake) -> list[str]:
    """Keys that an interrupted repair has taken out and not indexed again."""
    try:
        return json.loads(lake.root.read_bytes(_LEFT))
    except FileNotFoundError:
        return []


def _keys(damages: Iterable[Damage], *others: str) -> tuple[str, ...]:
    partitions = [damage.partition for damage in damages]
    return tuple(
        sorted({f"{where['domain']}.{where['shard']}" for where in partitions if where is not None} | {*others})
    )
