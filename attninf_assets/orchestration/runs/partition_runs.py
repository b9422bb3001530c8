"""Assets that materialize several partitions in one run, each with an event, checks and errors of its own.

What a run's one result says, Dagster says of every partition alike: one data version, one provenance, all at the end.
So such an asset emits each partition's materialization itself, as soon as the partition is finished, with the very tags
that Dagster gives a run of that partition alone, and then a result that makes no materializations.
"""

import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import dagster as dg

from attninf_assets.corpus.documents import BadFileError
from attninf_assets.corpus.printable import printable
from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.orchestration.display.metadata import records
from attninf_assets.orchestration.runs import dagster_internals as internals
from attninf_assets.orchestration.runs.check_history import last_verdicts
from attninf_assets.orchestration.runs.partitions import corpus_shards
from attninf_assets.orchestration.runs.retries import is_transient
from attninf_assets.store.uris import redacted

PartitionEvents = Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.MaterializeResult]
# The mark by which Dagster knows assets that have emitted their events already: it writes none for this result.
_NO_MORE_EVENTS: dg.MaterializeResult[None] = dg.MaterializeResult(
    metadata={internals.SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
)


FAILED_PARTITIONS = "failed_partitions"  # metadata of a failed run: partition, file, row, reason
_MOST_NAMED = 100  # partitions in the table of all
_LONGEST_FOUND = 200  # characters of what a check found in one of them


@dataclass(frozen=True)
class PartitionCheck:
    """An asset check that judges one partition at a time; its description is the docstring of `judge`."""

    asset: dg.AssetKey
    judge: Callable[[str, LakeResource], dg.AssetCheckResult]  # of a key, in the lake with its rows
    partitions: dg.DynamicPartitionsDefinition = corpus_shards  # the asset's

    def evaluation(self, instance: dg.DagsterInstance, key: str, lake: LakeResource) -> dg.AssetCheckEvaluation:
        """The check of one partition, as an event about the partition's last materialization."""
        return self._event(instance, key, self.judge(key, lake))

    def evaluations_of_all(self, instance: dg.DagsterInstance, lake: LakeResource) -> Iterator[dg.AssetCheckEvaluation]:
        """The check of every partition that was ever materialized: the whole in one event, which is the run's own.

        In its table partitions that do not pass stand first, those that only warn after the others; one that cannot be
        judged has failed. What the UI lists is the last verdict on each partition, so there is an event for each whose
        verdict is new, those that do not pass last. The latest is what the check's page shows: it has the table, too.
        """
        registered = self.partitions.get_partition_keys(dynamic_partitions_store=instance)
        made = instance.get_materialized_partitions(self.asset)
        found = {key: self._judged(key, lake) for key in registered if key in made}
        not_passed = sorted(
            (key for key, result in found.items() if not result.passed),
            key=lambda key: (found[key].severity is not dg.AssetCheckSeverity.ERROR, key),
        )
        passed = [key for key, result in found.items() if result.passed]
        told: dict[str, Any] = {
            "partitions": len(found),
            "partitions_not_passed": len(not_passed),
            "by_partition": records([_told(key, found[key]) for key in [*not_passed, *passed][:_MOST_NAMED]]),
        }
        summary = f"{len(not_passed):,} of {len(found):,} partitions do not pass"
        yield dg.AssetCheckEvaluation(
            asset_key=self.asset,
            check_name=self.judge.__name__,
            passed=not not_passed,
            severity=found[not_passed[0]].severity if not_passed else dg.AssetCheckSeverity.ERROR,
            description=summary,
            metadata=told,
        )
        before = last_verdicts(instance, dg.AssetCheckKey(self.asset, self.judge.__name__))
        new = [key for key in [*passed, *reversed(not_passed)] if before.get(key) != found[key].passed]
        if new and not_passed and new[-1] != not_passed[0]:
            new.append(not_passed[0])  # the worst is what the page shows
        for key in new[:-1]:
            yield self._event(instance, key, found[key])
        for key in new[-1:]:
            yield self._event(instance, key, found[key], of_all=told, description=summary)

    def _event(
        self,
        instance: dg.DagsterInstance,
        key: str,
        result: dg.AssetCheckResult,
        *,
        of_all: Mapping[str, Any] = MappingProxyType({}),
        description: str | None = None,
    ) -> dg.AssetCheckEvaluation:
        told = result._replace(
            description=description or result.description, metadata={**(result.metadata or {}), **of_all}
        )
        return _evaluation(instance, self.asset, self.judge.__name__, key, told)

    def _judged(self, key: str, lake: LakeResource) -> dg.AssetCheckResult:
        try:
            return self.judge(key, lake)
        except Exception as error:  # one partition that cannot be judged is no reason to leave the others
            return dg.AssetCheckResult(
                passed=False, metadata={"error": f"{type(error).__name__}: {printable(redacted(error), lines=True)}"}
            )

    def definition(self) -> dg.AssetChecksDefinition:
        """The asset check for Dagster: of all partitions of a run, or of the whole asset in a run of no partition."""

        def evaluated(
            context: dg.AssetCheckExecutionContext, lake: LakeResource
        ) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
            if context.has_partition_key or context.has_partition_key_range:
                for key in context.partition_keys:
                    yield self.evaluation(context.instance, key, lake)
            else:
                yield from self.evaluations_of_all(context.instance, lake)
            yield dg.Output(None)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)  # of partitioned checks: our tests say how they behave
            check = dg.asset_check(
                asset=self.asset,
                name=self.judge.__name__,
                description=self.judge.__doc__,
                partitions_def=self.partitions,
            )
            return check(evaluated)  # type: ignore[arg-type]  # a stream of events is as welcome as a result


def _told(key: str, result: dg.AssetCheckResult) -> dict[str, str]:
    """A partition's row in the table of all."""
    verdict = "passed" if result.passed else result.severity.value.lower()
    found = ", ".join(f"{name}: {_short(value.value)}" for name, value in (result.metadata or {}).items())
    return {"partition": key, "result": verdict, "found": found}


def _short(value: object) -> str:
    told = str(value)
    return told if len(told) <= _LONGEST_FOUND else f"{told[:_LONGEST_FOUND]}…"


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
            context.log.debug(f"{self.name} is evaluated by runs of {self.asset.to_user_string()} themselves")
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
        description=result.description,
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

    Bad input (`ValueError`) ends in a `dg.Failure` that names partition, file, row and reason in its metadata, where
    they are known, without the way the code took; what else fails keeps its type, and its traceback is in the log.
    """
    keys, spec = context.partition_keys, context.assets_def.get_asset_spec(context.asset_key)
    finished = _finished_before(context)
    failed: dict[str, Exception] = {}
    for key in keys:
        if key in finished:
            continue
        if len(keys) > 1:
            context.log.info(f"{numbered(context, key)} begins")
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
            trace = [] if isinstance(error, ValueError) else traceback.format_exception(error)  # a fault of the code
            told = "\n".join(
                [f"{type(error).__name__}: {_reason(error)}", printable(redacted("".join(trace)), lines=True)]
            )
            context.log.error(f"{numbered(context, key)} failed: {told.strip()}")
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
    unchecked = yield from _evaluations_before_the_end(context.instance, finished, lake=lake, checks=checks)
    _raise(failed, unchecked, n_partitions=len(keys))


def _evaluations_before_the_end(
    instance: dg.DagsterInstance, keys: Sequence[str], *, lake: LakeResource, checks: Sequence[PartitionCheck]
) -> Generator[dg.AssetCheckEvaluation, None, dict[str, Exception]]:
    """The checks of these partitions; returns those that could not be made, which must not hide why the run fails."""
    unchecked: dict[str, Exception] = {}
    for key in keys:
        for check in checks:
            try:
                evaluation = check.evaluation(instance, key, lake)
            except Exception as error:
                unchecked[f"{check.judge.__name__} of {key}"] = error
            else:
                yield evaluation
    return unchecked


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


def numbered(context: dg.AssetExecutionContext, key: str) -> str:
    """The partition as it is called in the run's log: with its place in the run, where that goes through several."""
    keys = context.partition_keys
    return key if len(keys) == 1 else f"{key} (shard {keys.index(key) + 1} of {len(keys)})"


def _raise(failed: dict[str, Exception], unchecked: dict[str, Exception], *, n_partitions: int) -> None:
    """End the run: by the error itself, or all of them, where one calls for another try or is no fault of the input."""
    errors = [*failed.values(), *unchecked.values()]
    what = f"{len(failed)} of the run's {n_partitions} partitions failed: {_named(failed)}"
    if unchecked:
        what += f"; and checks of others: {_named(unchecked)}"
    if any(map(is_transient, errors)) or not all(isinstance(error, ValueError) for error in errors):
        raise errors[0] if n_partitions == 1 else ExceptionGroup(what, errors)
    description = _reason(errors[0]) if n_partitions == 1 else what
    rows = [_failed_partition(key, error) for key, error in failed.items()]
    raise dg.Failure(description, metadata={FAILED_PARTITIONS: records(rows)}, allow_retries=False) from None


def _failed_partition(key: str, error: Exception) -> dict[str, str]:
    """A failed partition's row in the failure's metadata; file and row are empty where the error does not know them."""
    uri, row = (printable(error.uri), error.row) if isinstance(error, BadFileError) else ("", None)
    return {"partition": key, "file": uri, "row": "" if row is None else str(row), "reason": _reason(error)}


def _reason(error: Exception) -> str:
    return printable(redacted(error), lines=True)


def _named(errors: dict[str, Exception]) -> str:
    return "; ".join(f"{name} ({type(error).__name__}: {_reason(error)})" for name, error in errors.items())


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
