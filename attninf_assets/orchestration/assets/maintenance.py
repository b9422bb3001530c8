"""Keeping the lake healthy: an asset that does it, and the schedule that runs it."""

from datetime import timedelta

import dagster as dg
from pydantic import Field

from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.display.catalog import OWNERS
from attninf_assets.orchestration.display.metadata import records
from attninf_assets.scores.runs import complete_scoring_runs
from attninf_assets.selector.stored import current_fingerprint, has_selector
from attninf_assets.store.maintenance import RETENTION, maintain


class MaintenanceConfig(dg.Config):
    """What maintenance may delete."""

    retention_days: float = Field(
        default=RETENTION / timedelta(days=1),
        ge=1,
        description="Nothing younger is deleted: old versions of the tables stay readable for so many days.",
    )


# Weeks, where the schedule says nights: any run counts, one by hand too, and with the schedule off nobody is late the
# next morning. A lake that was never maintained is of unknown freshness, which is no failure.
_FRESH = dg.FreshnessPolicy.time_window(warn_window=timedelta(days=8), fail_window=timedelta(days=30))


@dg.asset(group_name="storage", owners=OWNERS, kinds={"deltalake"}, freshness_policy=_FRESH)
def lake_maintenance(
    context: dg.AssetExecutionContext, config: MaintenanceConfig, lake: LakeResource
) -> dg.MaterializeResult:
    """Small files merged, files that no version within the retention needs deleted, leftovers of killed runs swept.

    Safe beside running backfills. Scores by earlier selectors can be read by table version until this deletes them."""
    tables = lake.tables()
    in_use = current_fingerprint(tables.root) if has_selector(tables.root) else None
    complete_scoring_runs(tables)  # before commits that note one expire
    cared, swept = maintain(tables, retention=timedelta(days=config.retention_days), selector_fingerprint=in_use)
    for path in [*swept.half_written, *swept.staged]:
        context.log.info(f"swept {path}")
    return dg.MaterializeResult(
        metadata={
            "tables": records([vars(table) for table in cared]),
            "half_written_files_swept": len(swept.half_written),
            "staging_directories_swept": len(swept.staged),
            "retention_days": config.retention_days,
        }
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
