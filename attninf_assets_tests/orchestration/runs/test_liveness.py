"""Locks of runs, between real processes that end in every way."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus

from attninf_assets.orchestration.runs.liveness import (
    LockCheckingRunLauncher,
    end_dead_runs,
    held_while_running,
    is_dead,
    living_in_process_executor,
    sweep_unseen,
)

HOLD = """
import sys
from pathlib import Path
from attninf_assets.orchestration.runs.liveness import held_while_running
with held_while_running(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "living_runs" / "run"


@pytest.fixture
def holder(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until a line is written to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_run_lives_while_its_process_does_and_is_dead_once_that_was_killed(
    lock: Path, holder: subprocess.Popen[str]
) -> None:
    assert lock.exists()
    assert [is_dead(lock), is_dead(lock)] == [False, False]
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert [is_dead(lock), is_dead(lock)] == [True, True]


def test_a_process_that_ends_by_itself_leaves_no_lock(lock: Path, holder: subprocess.Popen[str]) -> None:
    holder.communicate("\n")
    assert list(lock.parent.iterdir()) == []
    assert not is_dead(lock)


def test_a_run_that_ends_by_itself_while_it_is_looked_at_is_not_dead(
    lock: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def end_first(file: Any, how: int) -> None:
        holder.communicate("\n")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", end_first)
    assert not is_dead(lock)
    assert holder.returncode == 0


def test_files_of_processes_killed_before_their_locks_were_seen_are_swept(
    lock: Path, holder: subprocess.Popen[str]
) -> None:
    killed, starting, held = (lock.with_name(f".{lock.name}.{pid}") for pid in (1, 2, 3))
    killed.write_text(socket.gethostname())
    starting.touch()  # between its making and its lock
    held.write_text(socket.gethostname())
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        sweep_unseen(lock.parent)
    assert sorted(lock.parent.iterdir()) == sorted([starting, held, lock])


def test_a_run_that_fails_leaves_no_lock(lock: Path) -> None:
    with pytest.raises(ValueError, match="broken"), held_while_running(lock):
        raise ValueError("broken")
    assert list(lock.parent.iterdir()) == []


def test_a_lock_from_another_host_says_nothing(lock: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    lock.write_text("another-host")
    assert not is_dead(lock)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance with the launcher that dagster.yaml names."""
    launcher = {"module": "attninf_assets.orchestration.runs.liveness", "class": "LockCheckingRunLauncher"}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"run_launcher": launcher}) as instance:
        yield instance


def test_the_launcher_fails_the_dead_and_nobody_else(
    instance: dg.DagsterInstance, lock: Path, holder: subprocess.Popen[str]
) -> None:
    launcher = instance.run_launcher
    assert isinstance(launcher, LockCheckingRunLauncher)
    assert launcher.supports_check_run_worker_health

    def health(run_id: str) -> WorkerStatus:
        return launcher.check_run_worker_health(dg.DagsterRun("job", run_id)).status

    assert [health("run"), health("elsewhere")] == [WorkerStatus.RUNNING, WorkerStatus.RUNNING]
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert [health("run"), health("elsewhere")] == [WorkerStatus.FAILED, WorkerStatus.RUNNING]


def test_ending_dead_runs_frees_their_places_and_leaves_living_ones_theirs(
    instance: dg.DagsterInstance, holder: subprocess.Popen[str]
) -> None:
    instance.add_run(dg.DagsterRun("job", "run", status=dg.DagsterRunStatus.STARTED))
    storage = instance.event_log_storage
    storage.set_concurrency_slots("gpu", 1)
    assert storage.claim_concurrency_slot("gpu", "run", "step").is_claimed

    def left() -> tuple[str | None, int]:
        run = instance.get_run_by_id("run")
        return run.status.value if run else None, storage.get_concurrency_info("gpu").active_slot_count

    end_dead_runs(instance)
    assert left() == ("STARTED", 1)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    end_dead_runs(instance)
    assert left() == ("FAILURE", 0)


def test_a_run_holds_its_lock_from_its_first_step_to_its_last(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    job = dg.reconstructable(job_that_looks)
    config = {"ops": {"look": {"config": {"locks": str(tmp_path / "living_runs"), "seen": str(seen)}}}}
    with dg.execute_job(job, instance=instance, run_config=config) as result:
        assert result.success
        assert seen.read_text() == result.run_id
    assert list((tmp_path / "living_runs").iterdir()) == []


@dg.op(config_schema={"locks": str, "seen": str})
def look(context: dg.OpExecutionContext) -> None:
    """Writes down which locks there are."""
    found = [path for path in Path(context.op_config["locks"]).iterdir() if not is_dead(path)]
    Path(context.op_config["seen"]).write_text(" ".join(path.name for path in found))


@dg.job(executor_def=living_in_process_executor)
def job_that_looks() -> None:
    look()
