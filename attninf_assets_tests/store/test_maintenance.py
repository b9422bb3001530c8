"""Maintenance of the lake: what it merges, what it deletes, what it never touches."""

import os
import socket
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from attninf_assets.definitions import definitions
from attninf_assets.scores.staging import StagedScores
from attninf_assets.store import maintenance
from attninf_assets.store.maintenance import maintain, sweep
from attninf_assets.store.root import Root
from attninf_assets.store.scratch import scratch_directory
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.processes import FORKED
from benchmarks.rigs.tables_of_scores import run_of, scores_of

_WEB_A = {"domain": "web", "shard": "a"}


@pytest.fixture
def no_shortest_retention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "SHORTEST_RETENTION", timedelta(0))


def _years_ago(path: Path) -> None:
    os.utime(path, (0, 0))


def test_small_files_are_merged_and_no_row_changes(root: Root) -> None:
    lake = Lake(root)
    for number in range(5):
        lake.append("scoring_runs", run_of("web", f"s{number}", number), writer=f"s{number}", number=number)
    before = lake.read("scoring_runs").sort_by("shard")
    (care,), _ = maintain(lake, selector_fingerprint=None)
    assert (care.table, care.files_compacted, len(lake.files("scoring_runs"))) == ("scoring_runs", 5, 1)
    assert lake.read("scoring_runs").sort_by("shard") == before
    assert lake.append("scoring_runs", run_of("web", "s1", 1), writer="s1", number=1) is None


def test_versions_within_the_retention_stay_readable(root: Root) -> None:
    lake = Lake(root)
    old = lake.replace("scores", scores_of("web", "a", 3, mark="old"), where=_WEB_A)
    lake.replace("scores", scores_of("web", "a", 3, mark="new"), where=_WEB_A)
    (care,), _ = maintain(lake, selector_fingerprint="new")
    assert care.files_vacuumed == 0
    assert set(lake.read("scores", version=old)["selector_fingerprint"].to_pylist()) == {"old"}


@pytest.mark.usefixtures("no_shortest_retention")
def test_past_the_retention_only_the_present_remains(root: Root) -> None:
    lake = Lake(root)
    old = lake.replace("scores", scores_of("web", "a", 3, mark="old"), where=_WEB_A)
    lake.replace("scores", scores_of("web", "a", 4, mark="new"), where=_WEB_A)
    time.sleep(1.1)
    (care,), _ = maintain(lake, retention=timedelta(0), selector_fingerprint="new")
    assert care.files_vacuumed == 1
    assert len(lake.read("scores")) == 4
    with pytest.raises(ValueError, match=rf"tables/scores: version {old} is vacuumed away"):
        lake.read("scores", version=old)


def test_a_retention_that_running_backfills_could_outlast_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 day"):
        maintain(Lake(Root.at(tmp_path)), retention=timedelta(hours=23), selector_fingerprint=None)


def test_leftovers_are_swept_once_they_are_old(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    Lake(root).replace("scores", scores_of("web", "a", 1), where=_WEB_A)
    kept: list[Path] = []
    swept: list[Path] = []
    for age, paths in (("old", swept), ("young", kept)):
        for leftover in (f"tables/scores/domain=web/shard=a/{age}.parquet#1", f"staging/f/web/a/.{age}.parquet.0.tmp"):
            path = tmp_path / leftover
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"half")
            paths.append(path)
    for path in swept:
        _years_ago(path)
    for path in tmp_path.glob("tables/scores/**/*.parquet"):
        _years_ago(path)
        kept.append(path)
    found = sweep(root, older_than=datetime.now(UTC) - timedelta(days=7), selector_fingerprint="f")
    assert sorted(found.half_written) == sorted(str(path.relative_to(tmp_path)) for path in swept)
    assert [path.exists() for path in swept] == [False, False]
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize(
    "leftover",
    [
        "selectors/.unfinished-another-host-0123/config.json",
        "selectors/.0a1b.0123456789abcdef0123456789abcdef/config.json",
        "maintenance/0123456789abcdef0123456789abcdef",
        "checksums/.scores.json.0123456789abcdef0123456789abcdef.tmp",
        "damaged/.to_index.json.0123456789abcdef0123456789abcdef.tmp",
        "previews/.0a1b.json.0123456789abcdef0123456789abcdef.tmp",
    ],
)
def test_what_killed_processes_left_elsewhere_under_the_root_is_swept_once_it_is_old(
    tmp_path: Path, leftover: str
) -> None:
    root = Root.at(tmp_path)
    root.write_bytes("selectors/0a1b/config.json", b"{}")
    root.write_bytes("selectors/current.json", b"{}")
    root.write_bytes(leftover, b"")
    _years_ago(tmp_path / "selectors/0a1b/config.json")
    week_ago = datetime.now(UTC) - timedelta(days=7)
    assert sweep(root, older_than=week_ago, selector_fingerprint=None).half_written == ()
    _years_ago(tmp_path / leftover)
    (found,) = sweep(root, older_than=week_ago, selector_fingerprint=None).half_written
    assert leftover.startswith(found)
    assert root.list("selectors") == ["selectors/0a1b/config.json", "selectors/current.json"]
    assert not root.exists(leftover)


def test_what_dead_processes_left_in_the_temporary_directory_is_swept_and_what_living_ones_use_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = Root.at(tmp_path / "root")
    with scratch_directory("shuffle") as used:
        dead = [used.with_name(used.name.replace("shuffle", purpose)[:-4] + "0000") for purpose in ("shuffle", "pin")]
        others = [tmp_path / "attninf-bench-0123", tmp_path / f"theirs-{socket.gethostname()}-0123"]
        for directory in [*dead, *others]:
            (directory / "model").mkdir(parents=True)
        swept = sweep(root, older_than=datetime.now(UTC), selector_fingerprint=None).scratch
        assert sorted(swept) == sorted(map(str, dead))
        assert all(directory.exists() for directory in [used, *others])
        assert not any(directory.exists() for directory in dead)


def test_staged_scores_go_when_their_selector_did_and_all_of_them_are_old(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    for fingerprint, shard in (("current", "a"), ("gone", "a"), ("gone", "b"), ("gone", "c")):
        staging = StagedScores(root, fingerprint, "web", shard)
        for _ in range(2):
            staging.add(scores_of("web", shard, 2))
    for path in tmp_path.glob("staging/**/*.parquet"):
        _years_ago(path)
    fresh = StagedScores(root, "gone", "web", "c")
    fresh.add(scores_of("web", "c", 3))  # a run with that selector still goes on
    found = sweep(root, older_than=datetime.now(UTC) - timedelta(days=1), selector_fingerprint="current")
    assert found.staged == ("staging/gone/web/a", "staging/gone/web/b")
    assert {path.split("/")[1] + path.split("/")[3] for path in root.list("staging")} == {"currenta", "gonec"}
    assert len(fresh.read()) == 3


def test_nothing_is_deleted_while_clocks_disagree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "_clock_of", lambda _: datetime.now(UTC) + timedelta(hours=2))
    with pytest.raises(RuntimeError, match="the storage's clock says"):
        maintain(Lake(Root.at(tmp_path)), selector_fingerprint=None)


def _write(root: Root, shard: str, times: int) -> None:
    for number in range(times):
        version = Lake(root).replace(
            "scores", scores_of("web", shard, 20, mark=str(number)), where={"domain": "web", "shard": shard}
        )
        Lake(root).append("scoring_runs", run_of("web", shard, version), writer=shard, number=version)


def test_writers_and_maintenance_do_not_disturb_each_other(root: Root) -> None:
    times = 6
    writers = [FORKED.Process(target=_write, args=(root, shard, times)) for shard in "ab"]
    for writer in writers:
        writer.start()
    rounds = 0
    while any(writer.is_alive() for writer in writers):
        maintain(Lake(root), selector_fingerprint=None)
        rounds += 1
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert rounds > 1
    maintain(Lake(root), selector_fingerprint=None)
    rows = Lake(root).read("scores")
    assert len(rows) == 40
    assert set(rows["selector_fingerprint"].to_pylist()) == {str(times - 1)}
    assert len(Lake(root).read("scoring_runs")) == 2 * times


def test_the_asset_maintains_the_lake_and_its_schedule_waits_to_be_switched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_ROOT", str(tmp_path))
    lake = Lake(Root.at(tmp_path))
    for number in range(3):
        lake.append("scoring_runs", run_of("web", f"s{number}", number), writer=f"s{number}", number=number)
    project = definitions()
    result = project.resolve_job_def("maintain_lake").execute_in_process(instance=dg.DagsterInstance.ephemeral())
    (done,) = result.asset_materializations_for_node("lake_maintenance")
    table = done.metadata["tables"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [(row.data["table"], row.data["files_compacted"]) for row in table.records] == [("scoring_runs", 3)]
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed) == ("nothing_is_damaged", True)
    schedule = project.resolve_schedule_def("nightly_maintenance")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED


def test_a_damaged_table_fails_the_assets_check_and_is_not_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_ROOT", str(tmp_path))
    lake = Lake(Root.at(tmp_path))
    for number in range(3):
        lake.append("scoring_runs", run_of("web", f"s{number}", number), writer=f"s{number}", number=number)
    lake.replace("scores", scores_of("web", "a", 3), where=_WEB_A)
    path, version = Path(lake.files("scoring_runs")[0]), lake.version("scoring_runs")
    path.write_bytes(b"")
    job = definitions().resolve_job_def("maintain_lake")
    result = job.execute_in_process(instance=dg.DagsterInstance.ephemeral())
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert path.name in str(evaluation.metadata["damaged"].value)
    assert lake.version("scoring_runs") == version
    (done,) = result.asset_materializations_for_node("lake_maintenance")
    table = done.metadata["tables"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [row.data["table"] for row in table.records] == ["scores"]


def test_where_it_is_not_known_which_selector_is_in_use_the_lake_is_maintained_and_no_staged_score_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_ROOT", str(tmp_path))
    root = Root.at(tmp_path)
    Lake(root).replace("scores", scores_of("web", "a", 3), where=_WEB_A)
    root.write_bytes("selectors/current.json", b"half of a rec")
    root.write_bytes("staging/some-selector/web/a/0.parquet", b"old")
    os.utime(tmp_path / "staging/some-selector/web/a/0.parquet", (0, 0))
    result = definitions().resolve_job_def("maintain_lake").execute_in_process(instance=dg.DagsterInstance.ephemeral())
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert "selectors/current.json" in str(evaluation.metadata["damaged"].value)
    (done,) = result.asset_materializations_for_node("lake_maintenance")
    assert done.metadata["staging_directories_swept"].value == 0
    assert root.exists("staging/some-selector/web/a/0.parquet")
