"""Assets that materialize several partitions in one run, each with an event, checks and errors of its own.

What a run's one result says, Dagster says of every partition alike: one data version, one provenance, all at the end.
So such an asset emits each partition's materialization itself, as soon as the partition is finished, with the very tags
that Dagster gives a run of that partition alone, and then a result that makes no materializations.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

import dagster as dg

from attninf_assets.corpus.printable import printable
from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.runs import dagster_internals as internals
from attninf_assets.orchestration.runs.partitions import corpus_shards
from attninf_assets.store.uris import redacted

PartitionEvents = Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.MaterializeResult]
# The mark by which Dagster knows assets that have emitted their events already: it writes none for this result.
_NO_MORE_EVENTS: dg.MaterializeResult[None] = dg.MaterializeResult(
    metadata={internals.SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
)


@dataclass(frozen=True)
class PartitionCheck:
    """An asset check that judges one partition at a time; its description is the docstring of `judge`."""

    asset: dg.AssetKey
    judge: Callable[[str, LakeResource], dg.AssetCheckResult]  # of a key, in the lake with its rows

    def evaluation(self, instance: dg.DagsterInstance, key: str, lake: LakeResource) -> dg.AssetCheckEvaluation:
        """The check of one partition, as an event about the partition's last materialization."""
        return _evaluation(instance, self.asset, self.judge.__name__, key, self.judge(key, lake))

    def definition(self) -> dg.AssetChecksDefinition:
        """The asset check for Dagster, which judges all partitions of a run."""

        def evaluated(
            context: dg.AssetCheckExecutionContext, lake: LakeResource
        ) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
            for key in context.partition_keys:
                yield self.evaluation(context.instance, key, lake)
            yield dg.Output(None)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # of partitioned checks: our tests say how they behave
            check = dg.asset_check(
                asset=self.asset,
                name=self.judge.__name__,
                description=self.judge.__doc__,
                partitions_def=corpus_shards,
            )
            return check(evaluated)  # type: ignore[arg-type]  # a stream of events is as welcome as a result


@dataclass(frozen=True)
class CheckInPassing:
    """An asset check that the asset's own run makes, in the check results of `materialize`, where it has the means.

    Materialized without them, and launched alone, it is not evaluated: what it last said stands.
    """

    asset: dg.AssetKey
    name: str
    description: str

    def definition(self) -> dg.AssetChecksDefinition:
        """The asset check for Dagster, which by itself says nothing."""

        def evaluated(context: dg.AssetCheckExecutionContext) -> Iterator[dg.Output[None]]:
            context.log.info(f"{self.name} is evaluated by runs of {self.asset.to_user_string()} themselves")
            yield dg.Output(None)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)
            check = dg.asset_check(
                asset=self.asset, name=self.name, description=self.description, partitions_def=corpus_shards
            )
            return check(evaluated)  # type: ignore[arg-type]


def _evaluation(
    instance: dg.DagsterInstance, asset: dg.AssetKey, name: str, key: str, result: dg.AssetCheckResult
) -> dg.AssetCheckEvaluation:
    wanted = dg.AssetRecordsFilter(asset, asset_partitions=[key])
    made = instance.fetch_materializations(wanted, limit=1).records
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=name,
        passed=result.passed,
        severity=result.severity,
        metadata=result.metadata,
        partition=key,
        target_materialization_data=internals.AssetCheckEvaluationTargetMaterializationData(
            storage_id=made[0].storage_id, run_id=made[0].run_id, timestamp=made[0].timestamp
        )
        if made
        else None,
    )


class HopelessError(Exception):
    """Ends a run at once, as its `__cause__` would befall every partition that is left."""


@contextmanager
def every_partition_concerned() -> Iterator[None]:
    """A block whose failure concerns every partition of the run: any exception in it becomes a `HopelessError`."""
    try:
        yield
    except Exception as error:
        raise HopelessError from error


def each_partition(
    context: dg.AssetExecutionContext,
    materialize: Callable[[str], dg.MaterializeResult],
    *,
    lake: LakeResource,
    checks: Sequence[PartitionCheck],
    besides: Callable[[str], Mapping[str, dg.MaterializeResult]] = lambda _: {},
) -> PartitionEvents:
    """The events of a run over several partitions: `materialize` is called for one partition key after the other.

    `besides` is called after it, succeed or fail, and gives other partitions that it had to make anew for the sake of
    this one; each has its event and its checks, before this one has its event.

    A partition that fails does not stop the others; the run then ends with an error that names all that failed, after
    the checks of the others were evaluated, which Dagster itself would skip; a check that cannot be is named as well.
    Check results that `materialize` gives are about its partition.
    When a step is tried again, partitions that it finished before are not visited a second time.
    """
    keys, spec = context.partition_keys, context.assets_def.get_asset_spec(context.asset_key)
    finished = _finished_before(context)
    failed: dict[str, Exception] = {}
    for key in keys:
        if key in finished:
            continue
        provenance = _provenance(context.instance, spec, key, run_id=context.run.run_id)
        result: dg.MaterializeResult | None = None
        others: Mapping[str, dg.MaterializeResult] = {}
        try:
            try:
                result = materialize(key)
            finally:
                others = besides(key)
        except HopelessError as error:
            cause = error.__cause__
            assert isinstance(cause, Exception)
            failed[key] = cause
            break
        except Exception as error:  # one broken partition is no reason to leave the others
            told = printable(redacted(error), lines=True)
            context.log.error(f"{key} failed: {type(error).__name__}: {told}", exc_info=len(keys) > 1)
            failed[key] = error.with_traceback(None)  # whose frames hold the partition's tables
        yield from _made_besides(context, others, lake=lake, checks=checks)
        if result is not None and key not in failed:
            finished.append(key)
            yield _materialization(context.asset_key, key, result, provenance)
            for found in result.check_results or ():
                assert found.check_name is not None
                yield _evaluation(context.instance, context.asset_key, found.check_name, key, found)
    if not failed:
        yield _NO_MORE_EVENTS
        return
    unchecked: dict[str, Exception] = {}
    for key in finished:
        for check in checks:
            try:
                evaluation = check.evaluation(context.instance, key, lake)
            except Exception as error:  # it must not hide why the run fails
                unchecked[f"{check.judge.__name__} of {key}"] = error
            else:
                yield evaluation
    raise _error(failed, unchecked, n_partitions=len(keys))


def _made_besides(
    context: dg.AssetExecutionContext,
    others: Mapping[str, dg.MaterializeResult],
    *,
    lake: LakeResource,
    checks: Sequence[PartitionCheck],
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    spec = context.assets_def.get_asset_spec(context.asset_key)
    for other, made in others.items():
        yield partition_event(context.instance, spec, other, made, run_id=context.run.run_id)
        yield from (check.evaluation(context.instance, other, lake) for check in checks)


def _error(failed: dict[str, Exception], unchecked: dict[str, Exception], *, n_partitions: int) -> Exception:
    if n_partitions == 1:
        return next(iter(failed.values()))
    what = f"{len(failed)} of the run's {n_partitions} partitions failed: {_named(failed)}"
    if unchecked:
        what += f"; and checks of others: {_named(unchecked)}"
    return ExceptionGroup(what, [*failed.values(), *unchecked.values()])


def _named(errors: dict[str, Exception]) -> str:
    return "; ".join(
        f"{name} ({type(error).__name__}: {printable(redacted(error), lines=True)})" for name, error in errors.items()
    )


def _finished_before(context: dg.AssetExecutionContext) -> list[str]:
    """Partitions that an earlier attempt of this very step finished."""
    if not context.retry_number:
        return []
    entries = context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
    return [event.partition for event in events if event.asset_key == context.asset_key and event.partition is not None]


def _materialization(
    asset: dg.AssetKey, key: str, result: dg.MaterializeResult, provenance: dict[str, str]
) -> dg.AssetMaterialization:
    assert result.data_version is not None, "the versions of partitions are their own"
    versions = {
        internals.DATA_VERSION_TAG: result.data_version.value,
        internals.DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
    }
    return dg.AssetMaterialization(asset, partition=key, metadata=result.metadata, tags={**provenance, **versions})


def partition_event(
    instance: dg.DagsterInstance, spec: dg.AssetSpec, key: str, result: dg.MaterializeResult, *, run_id: str
) -> dg.AssetMaterialization:
    """The event of a partition that was made besides the run's own, from its inputs as they are now."""
    return _materialization(spec.key, key, result, _provenance(instance, spec, key, run_id=run_id))


def _provenance(instance: dg.DagsterInstance, spec: dg.AssetSpec, key: str, *, run_id: str) -> dict[str, str]:
    """The code and the inputs that the partition is about to be made from, as Dagster's tags.

    An input without an event of the same partition counts as unpartitioned. Pointers are to be older than what is then
    read: what lands in between makes the partition stale, not current.
    """
    found = {internals.CODE_VERSION_TAG: spec.code_version or run_id}
    for dependency in spec.deps:
        record = _latest(instance, dependency.asset_key, key)
        partitioned = record is not None
        record = record or _latest(instance, dependency.asset_key, None)
        version = record and internals.extract_data_version_from_entry(record.event_log_entry)
        value = (version or internals.DEFAULT_DATA_VERSION).value
        found[internals.get_input_data_version_tag(dependency.asset_key)] = (
            sha256(value.encode()).hexdigest() if partitioned else value
        )
        pointer = internals.NULL_EVENT_POINTER if record is None else str(record.storage_id)
        found[internals.get_input_event_pointer_tag(dependency.asset_key)] = pointer
    return found


def _latest(instance: dg.DagsterInstance, asset: dg.AssetKey, key: str | None) -> dg.EventLogRecord | None:
    wanted = dg.AssetRecordsFilter(asset, asset_partitions=None if key is None else [key])
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0] if records else None
