"""Every private name of Dagster that this project uses, and for what; checked against 1.13.27.

A minor version may rename or change any of it: the dependency ends below the next one, and a test compares the
behaviour relied on, and the version, with what is written here.

Runs that are looked after, in `liveness`:

- `CheckRunHealthResult`, `WorkerStatus`: what a launcher answers run monitoring, so that a dead run is marked failed.
- `LaunchRunContext`: what a launcher is given with a run. A launcher also finds its instance as `self._instance`.

Partitions with events of their own, in `partition_runs`:

- `SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION`: the mark of a result for which Dagster writes no materialization.
- `AssetCheckEvaluationTargetMaterializationData`: which materialization a check was evaluated on.
- `DATA_VERSION_TAG`, `DATA_VERSION_IS_USER_PROVIDED_TAG`, `CODE_VERSION_TAG`, `get_input_data_version_tag`,
  `get_input_event_pointer_tag`: the tags by which Dagster tells what a materialization was made from.
- `DEFAULT_DATA_VERSION`, `NULL_EVENT_POINTER`: the values of these tags for an input without a materialization.
- `extract_data_version_from_entry`: the data version that an event gave its asset.

Links to the code, in `display/code_references`:

- `DecoratedOpFunction`: what an asset's op computes by; its `decorated_fn` is the function as it was written.

Which run tried a partition last, in `shard_work`: the event log storage is asked by
`get_latest_asset_partition_materialization_attempts_without_materializations(asset)`.

What a check said last, in `check_history`:

- `COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES`, `AssetCheckExecutionRecordStatus`: of the records that hold a
  result. The event log storage is asked by `get_asset_check_execution_history(check, limit=, status=)` and
  `get_asset_check_partition_info([check])`, which no public method of the instance offers.
"""

from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecordStatus,
)

__all__ = [
    "CHECKED_AGAINST",
    "CODE_VERSION_TAG",
    "COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES",
    "DATA_VERSION_IS_USER_PROVIDED_TAG",
    "DATA_VERSION_TAG",
    "DEFAULT_DATA_VERSION",
    "NULL_EVENT_POINTER",
    "SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION",
    "AssetCheckEvaluationTargetMaterializationData",
    "AssetCheckExecutionRecordStatus",
    "CheckRunHealthResult",
    "DecoratedOpFunction",
    "LaunchRunContext",
    "WorkerStatus",
    "extract_data_version_from_entry",
    "get_input_data_version_tag",
    "get_input_event_pointer_tag",
]

CHECKED_AGAINST = "1.13.27"
