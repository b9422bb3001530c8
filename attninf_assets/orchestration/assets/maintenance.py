"""The asset `lake_maintenance`, the job that materializes it, and the schedule that runs the job every night."""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.display.catalog import OWNERS
from attninf_assets.orchestration.display.metadata import as_json, records
from attninf_assets.scores.runs import complete_scoring_runs
from attninf_assets.selector.stored import current_fingerprint, has_selector
from attninf_assets.store.maintenance import RETENTION, maintain
from attninf_assets.store.scrub import scrub
from attninf_assets.upkeep.inspection import find_damage

_MOST_NAMED = 100


class MaintenanceConfig(dg.Config):
    """Run configuration of `lake_maintenance`: how long old versions of the tables are kept."""

    retention_days: float = Field(
        default=RETENTION / timedelta(days=1),
        ge=1,
        description="Nothing younger is deleted: old versions of the tables stay readable for so many days.",
    )


# Weeks, where the schedule says nights: any run counts, one by hand too, and with the schedule off nobody is late the
# next morning. A lake that was never maintained is of unknown freshness, which is no failure.
_FRESH = dg.FreshnessPolicy.time_window(warn_window=timedelta(days=8), fail_window=timedelta(days=30))


_NOTHING_IS_DAMAGED = dg.AssetCheckSpec(
    "nothing_is_damaged",
    asset="lake_maintenance",
    description="Every file of tables, logs, pinned models, records and staged scores is there and is what was "
    "written; those of the training corpus have their size.",
)


@dg.asset(
    group_name="storage",
    owners=OWNERS,
    kinds={"deltalake"},
    freshness_policy=_FRESH,
    check_specs=[_NOTHING_IS_DAMAGED],
)
def lake_maintenance(
    context: dg.AssetExecutionContext, config: MaintenanceConfig, lake: LakeResource
) -> dg.MaterializeResult:
    """The report, in the metadata, of a maintenance of the lake: files damaged, merged, deleted and swept.

    It keeps the lake whole, fast to read and small: damage is looked for, small files are merged, files that no version
    within the retention needs are deleted, and so is what killed runs left behind. Every file under the root is read
    once, but for those of the training corpus. A damaged table is left as it is until `attninf repair` has mended it.
    Safe beside running backfills. Scores by earlier selectors can be read by table version until this deletes them.
    """
    tables = lake.tables()
    damages = find_damage(tables, thorough=False)
    for damage in damages:
        context.log.error(f"damaged: {damage}; `attninf repair` shows what mends it")
    try:
        in_use, known = current_fingerprint(tables.root) if has_selector(tables.root) else None, True
    except ValueError:  # its record is among what is damaged
        in_use, known = None, False
    complete_scoring_runs(tables)  # before commits that note one expire
    cared, swept = maintain(
        tables,
        retention=timedelta(days=config.retention_days),
        selector_fingerprint=in_use,
        keep_staged=not known,
        spare={damage.table for damage in damages if damage.table is not None},
    )
    damages += [damage for damage in scrub(tables, only_new=True) if damage not in damages]  # of files just merged
    for path in [*swept.half_written, *swept.staged, *swept.scratch]:
        context.log.info(f"swept {path}")
    return dg.MaterializeResult(
        metadata={
            "tables": records([vars(table) for table in cared]),
            "half_written_files_swept": len(swept.half_written),
            "staging_directories_swept": len(swept.staged),
            "temporary_directories_swept": len(swept.scratch),
            "damaged_files": len(damages),
            "retention_days": config.retention_days,
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=_NOTHING_IS_DAMAGED.name,
                passed=not damages,
                metadata={"damaged": as_json([str(damage) for damage in damages[:_MOST_NAMED]])},
            )
        ],
    )


maintenance_job = dg.define_asset_job(
    "maintain_lake",
    selection=dg.AssetSelection.assets(lake_maintenance),
    description="Compact, vacuum and sweep the lake.",
)

nightly_maintenance = dg.ScheduleDefinition(
    name="nightly_maintenance",
    job=maintenance_job,
    cron_schedule="30 3 * * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Maintains the lake every night at half past three UTC, once it is switched on.",
)
