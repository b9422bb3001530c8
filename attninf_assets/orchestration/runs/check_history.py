"""What a check said when it last said anything."""

import dagster as dg

from attninf_assets.orchestration.runs.dagster_internals import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecordStatus,
)

__all__ = ["last_result_was_a_failure", "last_verdicts"]


def last_result_was_a_failure(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> bool:
    """Whether the check's last result on this instance was a failure, more than a warning.

    A check that is only planned, as it is by the run that asks, or that died, has no result.
    """
    records = instance.event_log_storage.get_asset_check_execution_history(
        check, limit=1, status=COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
    )
    results = [record.evaluation for record in records]
    return any(
        result is not None and not result.passed and result.severity == dg.AssetCheckSeverity.ERROR
        for result in results
    )


def last_verdicts(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> dict[str, bool]:
    """Whether the check passed when each partition was judged last; one that never was is absent. One query."""
    found = instance.event_log_storage.get_asset_check_partition_info([check])
    return {
        info.partition_key: info.latest_execution_status is AssetCheckExecutionRecordStatus.SUCCEEDED
        for info in found
        if info.partition_key is not None
        and info.latest_execution_status in COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES
    }
