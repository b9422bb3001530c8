"""The sensor that makes partitions of the selections file's names, and the job that retires a selection."""

import dagster as dg
from pydantic import Field

from attninf_assets.orchestration.connections.resources import LakeResource, SelectionsResource
from attninf_assets.orchestration.runs.partitions import SELECTIONS
from attninf_assets.orchestration.runs.partitions import selections as selection_names
from attninf_assets.orchestration.runs.selections import changed_definitions, undefined
from attninf_assets.selection.retirement import retire_selection, selections_to_retire, stored_selections


@dg.sensor(
    name="selections",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers every selection of the selections file as a partition and reports its definition, so that a "
    "changed one is stale.\n\nOn from the first start: it reads one file. A selection that the file no longer defines "
    "is named in the tick's message; its partition and rows stay until `retire_selections` is run.",
)
def selections_sensor(context: dg.SensorEvaluationContext, selections: SelectionsResource) -> dg.SensorResult:
    """Partitions for new names, events for changed definitions; the message names what is no longer defined."""
    file = selections.read()
    registered = context.instance.get_dynamic_partitions(SELECTIONS)
    new = [name for name in file.definitions if name not in registered]
    events = list(changed_definitions(context.instance, file))
    parts = [f"{len(file.definitions):,} selections: {', '.join(file.definitions)}"]
    if new:
        parts.append(f"new: {', '.join(new)}")
    if changed := [str(event.partition) for event in events if event.partition and event.partition not in new]:
        parts.append(f"changed: {', '.join(changed)}")
    if gone := undefined(context.instance, file):
        parts.append(
            f"{file.place} no longer defines {', '.join(gone)}: rows and partition stay until retire_selections is run"
        )
    story = "; ".join(parts)
    (context.log.warning if gone else context.log.info)(story)
    return dg.SensorResult(
        dynamic_partitions_requests=[selection_names.build_add_request(new)] if new else None,
        asset_events=events,
        skip_reason=dg.SkipReason(story),
    )


class SelectionRetirementConfig(dg.Config):
    """Run configuration of `retire_selections`: the selections to take out."""

    selections: list[str] = Field(
        default=[], description="Names; none: every selection that the selections file no longer defines."
    )


@dg.op
def retire_named(
    context: dg.OpExecutionContext,
    config: SelectionRetirementConfig,
    selections: SelectionsResource,
    lake: LakeResource,
) -> None:
    """Takes the selections' rows out of thresholds and selected_subset, and deletes their partitions.

    Raises `ValueError`, before anything is deleted, for a selection that is still defined, or that nobody knows.
    """
    tables, file = lake.tables(), selections.read()
    registered = set(context.instance.get_dynamic_partitions(SELECTIONS))
    chosen = selections_to_retire(config.selections, known=registered | stored_selections(tables), selections=file)
    for name in chosen:
        taken = retire_selection(tables, name)
        context.log.info(f"retired {name}: {taken:,} rows of selected_subset")
    for name in sorted(registered.intersection(chosen)):  # last: a run that is repeated still knows its selections
        context.instance.delete_dynamic_partition(SELECTIONS, name)
    context.log.info(
        f"{len(chosen):,} selections retired" if chosen else "nothing to retire: every selection is defined"
    )


@dg.job(name="retire_selections")
def retire_selections() -> None:
    """Take selections out of the tables that the selections file no longer defines."""
    retire_named()
