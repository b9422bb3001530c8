"""What Dagster must keep doing behind its public interface; its tags are compared in test_partition_runs."""

import logging
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._daemon.monitoring.run_monitoring import monitor_started_run
from packaging.requirements import Requirement
from packaging.version import Version

from attninf_assets.orchestration.runs import dagster_internals as internals
from attninf_assets.orchestration.runs.liveness import LockCheckingRunLauncher
from attninf_assets.orchestration.runs.partition_runs import each_partition

CHECKED = Version(internals.CHECKED_AGAINST)
LETTERS = dg.StaticPartitionsDefinition(["a"])
PAGE = "read dagster_internals.py against this version, then raise CHECKED_AGAINST and the bounds in pyproject.toml"


def test_the_installed_dagster_is_of_the_minor_version_that_was_checked() -> None:
    installed = Version(version("dagster"))
    assert installed.release[:2] == CHECKED.release[:2], PAGE


def test_the_dependencies_admit_that_minor_version_and_no_later_one() -> None:
    """dagster-aws counts 0.(minor + 16) and depends on the very same patch of Dagster."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    allowed = {found.name: found.specifier for found in map(Requirement, project["dependencies"])}
    minor, patch = CHECKED.release[1:]
    assert allowed["dagster"].contains(CHECKED)
    assert not allowed["dagster"].contains(f"1.{minor + 1}.0"), PAGE
    assert allowed["dagster-aws"].contains(f"0.{minor + 16}.{patch}")
    assert not allowed["dagster-aws"].contains(f"0.{minor + 17}.0"), PAGE
    installed = Version(version("dagster")), Version(version("dagster-aws"))
    assert (installed[1].release[1], installed[1].release[2]) == (installed[0].release[1] + 16, installed[0].release[2])


def test_every_name_on_the_page_is_there() -> None:
    assert all(getattr(internals, name) is not None for name in internals.__all__)


@dg.asset
def heads() -> None:
    """Never materialized here."""


def events(instance: dg.DagsterInstance, asset: dg.AssetsDefinition) -> list[dict[str, str]]:
    """The tags of every materialization that a run of the asset's only partition leaves, without the run's own id."""
    run = dg.materialize([heads, asset], selection=[asset.key], instance=instance, partition_key="a")
    assert run.success
    records = instance.fetch_materializations(asset.key, limit=10).records
    made = [record.asset_materialization for record in records]
    return [{k: v for k, v in (m.tags or {}).items() if v != run.run_id} for m in made if m is not None]


def test_a_marked_result_makes_no_materialization_and_an_unmarked_one_does() -> None:
    @dg.asset(partitions_def=LETTERS)
    def silent() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={internals.SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True})

    @dg.asset(partitions_def=LETTERS)
    def plain() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"some": True})

    with dg.DagsterInstance.ephemeral() as instance:
        assert [len(events(instance, asset)) for asset in (silent, plain)] == [0, 1]


def test_the_tags_for_an_input_that_was_never_materialized_are_dagsters_own() -> None:
    def result(_: str = "a") -> dg.MaterializeResult:
        return dg.MaterializeResult(data_version=dg.DataVersion("scores"))

    @dg.asset(name="theirs", partitions_def=LETTERS, deps=[heads])
    def theirs() -> dg.MaterializeResult:
        return result()

    @dg.asset(name="ours", partitions_def=LETTERS, deps=[heads])
    def ours(context: dg.AssetExecutionContext) -> Any:
        yield from each_partition(context, result, lake=None, checks=())  # type: ignore[arg-type]

    with dg.DagsterInstance.ephemeral() as instance:
        (by_dagster,), (by_us,) = events(instance, theirs), events(instance, ours)
    assert by_us == by_dagster
    assert by_us[internals.get_input_data_version_tag(heads.key)] == internals.DEFAULT_DATA_VERSION.value
    assert by_us[internals.get_input_event_pointer_tag(heads.key)] == internals.NULL_EVENT_POINTER


DIE_HOLDING = """
import os, signal, sys
from pathlib import Path
from attninf_assets.orchestration.runs.liveness import held_while_running
with held_while_running(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("dead", [True, False])
def test_run_monitoring_asks_the_launcher_and_marks_a_dead_run_failed(dead: bool, tmp_path: Path) -> None:
    launcher = {"module": "attninf_assets.orchestration.runs.liveness", "class": "LockCheckingRunLauncher"}
    if dead:
        died = subprocess.run([sys.executable, "-c", DIE_HOLDING, str(tmp_path / "living_runs" / "run")], check=False)
        assert died.returncode == -signal.SIGKILL
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"run_launcher": launcher}) as instance:
        assert isinstance(instance.run_launcher, LockCheckingRunLauncher)
        assert instance.run_launcher._instance is instance
        instance.add_run(dg.DagsterRun("job", "run", status=dg.DagsterRunStatus.STARTED))
        (record,) = instance.get_run_records()
        monitor_started_run(instance, None, record, logging.getLogger(__name__))  # type: ignore[arg-type]
        run = instance.get_run_by_id("run")
    assert run is not None
    assert run.status == (dg.DagsterRunStatus.FAILURE if dead else dg.DagsterRunStatus.STARTED)
