"""Damaged tables brought back: what a damaged file held is taken out, and made again where the corpus has it."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.stored_index import index_and_store
from attninf_assets.store.checksums import record_of
from attninf_assets.store.compatibility import WRITTEN_BY
from attninf_assets.store.damage import Damage
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.scrub import LOG
from attninf_assets.store.setting_aside import ASIDE, move_aside, set_aside
from attninf_assets.store.tables import Lake

__all__ = ["RepairPlan", "plan_of", "reindex", "take_out"]

_LEFT = f"{ASIDE}/to_index.json"  # under the root, while a repair is under way
_INDEX = ("documents", "quarantine")  # made together, from a shard's source file


@dataclass(frozen=True)
class RepairPlan:
    """What mends some damage: what a repair does itself, and what is to be launched after it."""

    take_out: tuple[Damage, ...]  # files of tables
    reindex: tuple[str, ...]  # keys of shards
    rescore: tuple[str, ...]  # keys of shards
    materialize: tuple[str, ...]  # assets
    lost: tuple[Damage, ...]  # of `take_out`, records that nothing makes again
    records: tuple[Damage, ...]  # of checksums: a sound file is recorded anew by the next scrub
    beyond: tuple[Damage, ...]  # logs: a log says what a table is, so nothing here knows better

    def told(self, *, done: bool) -> Iterator[str]:
        """The plan in words, a line for each thing that a repair does, or with `done` has done, and that is left."""
        if self.take_out:
            told = "set aside under" if done else "would be set aside under"
            yield f"{len(self.take_out):,} files {told} {ASIDE}/ and taken out of their tables"
        if self.records:
            told = "moved to" if done else "would be moved to"
            yield f"{len(self.records):,} records of checksums {told} {ASIDE}/; the next scrub makes new ones"
        for key in self.reindex:
            yield f"{key} {'is' if done else 'would be'} indexed again from its source"
        if self.rescore:
            yield f"then score what is missing: attninf backfill {' '.join(self.rescore)}"
        for asset in self.materialize:
            yield f"then make its rows again: dg launch --assets {asset}"
        for damage in self.lost:
            yield f"{damage.table}: what {damage.file} recorded is lost; only what scoring cost is told from it"
        for damage in self.beyond:
            yield (
                f"{damage.table}: its log is damaged, which no command mends: put {damage.file} back from a backup, or "
                f"move tables/{damage.table} away and run: dg launch --assets {WRITTEN_BY[damage.table]}"
            )


def plan_of(lake: Lake, damages: Iterable[Damage]) -> RepairPlan:
    """What mends them, and what is left of a repair that was interrupted."""
    found = sorted(damages, key=lambda damage: (damage.table, damage.file))
    records = tuple(damage for damage in found if damage.file == record_of(damage.table))
    beyond = tuple(damage for damage in found if damage.file.startswith(LOG))
    files = tuple(damage for damage in found if damage not in records + beyond)
    whole = {damage.table for damage in files} - {*_INDEX, "scores", "scoring_runs"}
    return RepairPlan(
        take_out=files,
        reindex=_keys([damage for damage in files if damage.table in _INDEX], *_left(lake)),
        rescore=_keys([damage for damage in files if damage.table == "scores"]),
        materialize=tuple(WRITTEN_BY[table] for table in TABLES if table in whole),
        lost=tuple(damage for damage in files if damage.table == "scoring_runs"),
        records=records,
        beyond=beyond,
    )


def take_out(lake: Lake, plan: RepairPlan) -> None:
    """Set the damaged files aside, table by table; what was in them is in no table then. Raises as `set_aside` does."""
    if plan.reindex:
        lake.root.write_bytes(_LEFT, json.dumps(plan.reindex).encode())
    for name in TABLES:
        if of_table := [damage for damage in plan.take_out if damage.table == name]:
            set_aside(lake, name, of_table)
    for damage in plan.records:
        move_aside(lake.root, damage.file)


def reindex(
    lake: Lake, plan: RepairPlan, *, find: Callable[[str], Shard], storage_options: StorageOptions = NO_OPTIONS
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
    lake.root.delete(_LEFT)
    return failed


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
