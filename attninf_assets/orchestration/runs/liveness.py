"""Detection of runs whose process has died: each run holds a lock on a file that its process cannot outlive.

The executor takes the lock, the launcher (named in dagster.yaml) looks at it when Dagster's run monitoring asks, and
the operating system gives it back with the process, however that ends. A run whose lock is free has died; one without a
lock file here, or with one from another host, may live elsewhere and is left alone.
"""

import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from attninf_assets.orchestration.runs.dagster_internals import CheckRunHealthResult, LaunchRunContext, WorkerStatus


def _lock_of(instance: dg.DagsterInstance, run_id: str) -> Path:
    return Path(instance.root_directory) / "living_runs" / run_id


@contextmanager
def held_while_running(lock: Path) -> Iterator[None]:
    """Hold a run's lock. Its file is there only while it is held, or after its process was killed."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    unseen = lock.with_name(f".{lock.name}.{os.getpid()}")  # one that is killed before the rename leaves this
    with unseen.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(socket.gethostname())
        file.flush()
        unseen.rename(lock)  # appears locked
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def is_dead(lock: Path) -> bool:
    """Whether the process that held this lock is gone; False where that cannot be known."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # A run that ended by itself since the file was opened has unlinked it.
            still_there = os.path.samestat(os.fstat(file.fileno()), lock.stat())
            return still_there and file.read() == socket.gethostname()
    except (FileNotFoundError, BlockingIOError):
        return False


def sweep_unseen(locks: Path) -> None:
    """Delete the lock files of this host's processes that were killed before their locks could be seen."""
    for unseen in locks.glob(".*"):
        if is_dead(unseen):
            unseen.unlink(missing_ok=True)


@contextmanager
def living_run(instance: dg.DagsterInstance) -> Iterator[str]:
    """Hold the lock of a run to be executed in this process for the length of the block; yields the run's id."""
    run_id = str(uuid.uuid4())
    with held_while_running(_lock_of(instance, run_id)):
        yield run_id


def end_dead_runs(instance: dg.DagsterInstance) -> None:
    """Mark runs whose process is gone as failed and free their places in the pools, where no daemon does it."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if is_dead(_lock_of(instance, run.run_id)):
            instance.report_run_failed(run, "the process of the run is gone")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


class _Living(dg.Executor):
    """Another executor, during whose work the run's lock is held."""

    def __init__(self, executor: dg.Executor) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        with held_while_running(_lock_of(plan_context.instance, plan_context.run_id)):
            yield from self._executor.execute(plan_context, execution_plan)


def _create(context: dg.InitExecutorContext) -> dg.Executor:
    create = dg.in_process_executor.executor_creation_fn
    assert create is not None
    return _Living(create(context))


# All steps in the run's own process, which holds the run's lock meanwhile.
living_in_process_executor = dg.ExecutorDefinition(
    name="in_process", config_schema=dg.in_process_executor.config_schema.as_field(), executor_creation_fn=_create
)


class LockCheckingRunLauncher(dg.DefaultRunLauncher):
    """Dagster's launcher for one machine, extended to say whether a run is dead, whoever launched it."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: Dagster's run monitoring asks this launcher whether runs are alive."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """FAILED for a run that has died: Dagster then marks it failed, retries it and frees its place in the pools."""
        if is_dead(_lock_of(self._instance, run.run_id)):
            return CheckRunHealthResult(WorkerStatus.FAILED, "the process of the run is gone")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch a run, and forget the locks of dead runs that are known to be dead by now."""
        locks = _lock_of(self._instance, "")
        sweep_unseen(locks)
        for lock in locks.glob("[!.]*"):
            run = self._instance.get_run_by_id(lock.name)
            if run is None or run.is_finished:
                lock.unlink(missing_ok=True)
        super().launch_run(context)
