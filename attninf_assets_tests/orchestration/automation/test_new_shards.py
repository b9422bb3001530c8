"""The sensor over real files and a real instance, tick by tick."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.remote_representation.external_data import SensorExecutionErrorSnap
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.impl import get_external_sensor_execution

from attninf_assets.definitions import definitions
from attninf_assets.orchestration.automation.new_shards import SHARDS_PER_TICK, new_shards
from attninf_assets.orchestration.connections.settings import read_settings, resources_from
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS


class Landing:
    """A folder in which files land, and an instance whose sensor looks at it."""

    def __init__(self, directory: Path, instance: dg.DagsterInstance) -> None:
        self.directory, self.instance = directory, instance
        self.cursor: str | None = None

    def drop(self, name: str, text: str = "Some text that is long enough.", *, age: float = 3600) -> Path:
        path = self.directory / "notes" / f"{name}.jsonl"
        path.write_text(json.dumps({"text": text}) + "\n")
        os.utime(path, (time.time() - age,) * 2)
        return path

    def tick(self) -> dg.SensorResult:
        """One tick; the partitions it asks for are added, as the daemon does."""
        corpus = resources_from(read_settings())["corpus"]
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={"corpus": corpus}
        ) as context:
            result = new_shards(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(CORPUS_SHARDS, list(request.partition_keys))
        return result

    def index(self, key: str) -> dg.ExecuteInProcessResult:
        job = definitions().resolve_job_def("ingest_shards")
        return job.execute_in_process(instance=self.instance, partition_key=key, raise_on_error=False)


def requested(result: dg.SensorResult) -> list[str]:
    return [request.partition_key or "" for request in result.run_requests or []]


@pytest.fixture
def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Landing]:
    (tmp_path / "notes").mkdir()
    (tmp_path / "corpus.yaml").write_text(
        yaml.safe_dump({"domains": {"notes": {"files": "notes/*.jsonl", "format": "jsonl"}}})
    )
    monkeypatch.setenv("ATTNINF_CORPUS", str(tmp_path / "corpus.yaml"))
    monkeypatch.setenv("ATTNINF_ROOT", str(tmp_path / "root"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Landing(tmp_path, instance)


def test_new_files_are_registered_and_requested_once(landing: Landing) -> None:
    landing.drop("one")
    landing.drop("two")
    assert requested(landing.tick()) == ["notes.one", "notes.two"]
    assert set(landing.instance.get_dynamic_partitions(CORPUS_SHARDS)) == {"notes.one", "notes.two"}
    quiet = landing.tick()
    assert requested(quiet) == []
    assert quiet.skip_reason is not None
    assert quiet.skip_reason.skip_message == "2 shards known"


def test_a_file_that_is_still_being_written_is_left_until_it_stands_still(landing: Landing) -> None:
    landing.drop("one", "half", age=1)
    first = landing.tick()
    landing.drop("one", "the whole of it", age=0)
    second = landing.tick()
    assert [requested(first), requested(second)] == [[], []]
    assert second.skip_reason is not None
    assert "1 perhaps still being written" in (second.skip_reason.skip_message or "")
    assert requested(landing.tick()) == ["notes.one"]


def test_a_replaced_file_is_requested_again_under_another_run_key(landing: Landing) -> None:
    landing.drop("one")
    before = landing.tick()
    landing.index("notes.one")
    assert requested(landing.tick()) == []
    landing.drop("one", "Another text altogether.", age=1800)
    after = landing.tick()
    assert requested(after) == ["notes.one"]
    assert {r.run_key for r in before.run_requests or []}.isdisjoint(r.run_key for r in after.run_requests or [])
    landing.index("notes.one")
    assert requested(landing.tick()) == []


def test_a_code_server_that_keeps_running_sees_a_changed_corpus_file_at_the_next_tick(landing: Landing) -> None:
    """The repository is loaded once, and each tick is what a code server does when the daemon asks it for one."""
    repository = definitions().get_repository_def()
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="attninf_assets.definitions"))
    landing.drop("one")
    (landing.directory / "more").mkdir()
    landing.drop("../more/two")
    home = landing.directory / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:

        def tick() -> str:
            answer = get_external_sensor_execution(
                repository, origin, instance.get_ref(), "new_shards", None, None, None, None, None
            )
            if isinstance(answer, SensorExecutionErrorSnap):
                assert answer.error is not None
                return answer.error.to_string()
            return ", ".join(sorted(str(request.partition_key) for request in answer.run_requests or []))

        assert tick() == "notes.one"
        domains = {name: {"files": f"{name}/*.jsonl", "format": "jsonl"} for name in ("notes", "more")}
        (landing.directory / "corpus.yaml").write_text(yaml.safe_dump({"domains": domains}))
        assert tick() == "more.two, notes.one"
        (landing.directory / "corpus.yaml").write_text("domains: {notes: {files: x.csv, format: csv}}")
        assert "domains.notes.format: 'csv'" in tick()


def test_a_shard_indexed_without_the_sensor_is_not_requested(landing: Landing) -> None:
    landing.drop("one")
    landing.instance.add_dynamic_partitions(CORPUS_SHARDS, ["notes.one"])
    landing.index("notes.one")
    assert requested(landing.tick()) == []


def test_a_failed_indexing_is_not_looped_and_a_repaired_file_is_requested(landing: Landing) -> None:
    path = landing.drop("one")
    path.write_bytes(b"\xff\xfe not json")
    os.utime(path, (time.time() - 3600,) * 2)
    assert requested(landing.tick()) == ["notes.one"]
    landing.index("notes.one")
    assert [requested(landing.tick()), requested(landing.tick())] == [[], []]
    landing.drop("one", age=1800)
    assert requested(landing.tick()) == ["notes.one"]


def test_a_removed_file_is_named_and_its_partition_stays(landing: Landing) -> None:
    landing.drop("one")
    gone = landing.drop("two")
    landing.tick()
    gone.unlink()
    result = landing.tick()
    assert requested(result) == []
    assert result.skip_reason is not None
    assert result.skip_reason.skip_message == "2 shards known; 1 whose file is gone: notes.two"
    assert landing.instance.has_dynamic_partition(CORPUS_SHARDS, "notes.two")


def test_the_very_file_of_a_retired_shard_is_indexed_again_when_it_comes_back(landing: Landing) -> None:
    landing.drop("one")
    path = landing.drop("two")
    before = landing.tick()
    landing.index("notes.one")
    landing.index("notes.two")
    landing.tick()
    path.rename(landing.directory / "away")
    definitions().resolve_job_def("retire_shards").execute_in_process(instance=landing.instance)
    assert requested(landing.tick()) == []
    (landing.directory / "away").rename(path)
    after = landing.tick()
    assert requested(after) == ["notes.two"]
    assert {r.run_key for r in before.run_requests or []}.isdisjoint(r.run_key for r in after.run_requests or [])
    assert requested(landing.tick()) == []


def test_every_sensor_and_job_says_in_the_ui_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_ALERT_WEBHOOK", "https://chat.test/hook")
    project = definitions()
    sensors = {sensor.name: sensor.description for sensor in project.sensors or []}
    assert sensors.keys() >= {"new_shards", "coverage_watch", "rescoring", "alert_on_failure"}
    jobs = {job.name: job.description for job in project.jobs or []}
    described = {**sensors, **jobs, **{s.name: s.description for s in project.schedules or []}}
    assert [name for name, description in described.items() if not description] == []
    assert (sensors["new_shards"] or "").startswith("Registers the partition of every new file")


def test_thousands_at_once_come_in_bounded_batches_with_a_bounded_cursor(landing: Landing) -> None:
    for number in range(700):
        landing.drop(f"{number:04}", age=1)
    batches: list[list[str]] = []
    while len(batches) < 3 or batches[-1]:
        batches.append(requested(landing.tick()))
        assert len(batches[-1]) <= SHARDS_PER_TICK
        assert len(landing.cursor or "") < 64_000
    seen = [key for batch in batches for key in batch]
    assert len(seen) == len(set(seen)) == 700
