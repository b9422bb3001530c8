"""The named selections as Dagster knows them: partitions, and the definition that each was last reported with."""

import json
from collections.abc import Iterator

import dagster as dg

from attninf_assets.orchestration.display.metadata import as_json
from attninf_assets.orchestration.runs.partitions import SELECTIONS
from attninf_assets.selection.selections_file import Selections

__all__ = ["DEFINITIONS", "MIX_DEFINITION", "changed_definitions", "register_selections", "undefined"]

DEFINITIONS = dg.AssetKey("selection_definitions")
MIX_DEFINITION = dg.AssetKey("mix_definition")
_DATA_VERSION = "dagster/data_version"


def changed_definitions(instance: dg.DagsterInstance, selections: Selections) -> Iterator[dg.AssetMaterialization]:
    """An event for every selection whose definition is not the one that was last reported, and for another mix."""
    for name, definition in selections.definitions.items():
        if _reported(instance, dg.AssetRecordsFilter(DEFINITIONS, asset_partitions=[name])) != definition.digest:
            yield dg.AssetMaterialization(
                DEFINITIONS,
                partition=name,
                tags={_DATA_VERSION: definition.digest},
                metadata={"definition": as_json(json.loads(definition.to_json())), "file": selections.place},
            )
    mixed = selections.mixed
    if _reported(instance, dg.AssetRecordsFilter(MIX_DEFINITION)) != mixed:
        yield dg.AssetMaterialization(
            MIX_DEFINITION, tags={_DATA_VERSION: mixed}, metadata={"selection": mixed, "file": selections.place}
        )


def _reported(instance: dg.DagsterInstance, of: dg.AssetRecordsFilter) -> str | None:
    """The data version that was reported last."""
    records = instance.fetch_materializations(of, limit=1).records
    made = records[0].asset_materialization if records else None
    return None if made is None else (made.tags or {}).get(_DATA_VERSION)


def undefined(instance: dg.DagsterInstance, selections: Selections) -> list[str]:
    """Names that are registered, and not defined any more."""
    return sorted(set(instance.get_dynamic_partitions(SELECTIONS)) - set(selections.definitions))


def register_selections(instance: dg.DagsterInstance, selections: Selections) -> None:
    """Make a partition of every selection, and report each definition that changed."""
    instance.add_dynamic_partitions(SELECTIONS, list(selections.definitions))
    for event in changed_definitions(instance, selections):
        instance.report_runless_asset_event(event)
