"""The sensor over real files and a real instance, tick by tick."""

import json
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.remote_representation.external_data import SensorExecutionErrorSnap
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._grpc.impl import get_external_sensor_execution
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.definitions import definitions
from attninf_assets.orchestration.automation.new_shards import SHARDS_PER_RUN, SHARDS_PER_TICK, neighbours, new_shards
from attninf_assets.orchestration.connections.settings import read_settings, resources_from
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS, RANGE_END_TAG, RANGE_START_TAG


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
        resources = resources_from(read_settings())
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources={name: resources[name] for name in ("corpus", "lake")}
        ) as context:
            result = new_shards(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(CORPUS_SHARDS, list(request.partition_keys))
        return result

    def runs(self, result: dg.SensorResult) -> list[list[str]]:
        """The partitions of each run that a tick requests."""
        order = list(self.instance.get_dynamic_partitions(CORPUS_SHARDS))
        found = []
        for request in result.run_requests or []:
            first = request.partition_key or request.tags[RANGE_START_TAG]
            last = request.partition_key or request.tags[RANGE_END_TAG]
            found.append(order[order.index(first) : order.index(last) + 1])
        return found

    def requested(self, result: dg.SensorResult | None = None) -> list[str]:
        """The partitions that a tick requests, in order; of the next one, where none is given."""
        return [key for keys in self.runs(result or self.tick()) for key in keys]

    def index(self, key: str) -> dg.ExecuteInProcessResult:
        job = definitions().resolve_job_def("ingest_shards")
        return job.execute_in_process(instance=self.instance, partition_key=key, raise_on_error=False)


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
    assert landing.requested() == ["notes.one", "notes.two"]
    assert set(landing.instance.get_dynamic_partitions(CORPUS_SHARDS)) == {"notes.one", "notes.two"}
    quiet = landing.tick()
    assert landing.requested(quiet) == []
    assert quiet.skip_reason is not None
    assert quiet.skip_reason.skip_message == "2 shards known"


def test_a_file_that_is_still_being_written_is_left_until_it_stands_still(landing: Landing) -> None:
    landing.drop("one", "half", age=1)
    first = landing.tick()
    landing.drop("one", "the whole of it", age=0)
    second = landing.tick()
    assert [landing.requested(first), landing.requested(second)] == [[], []]
    assert second.skip_reason is not None
    assert "1 perhaps still being written" in (second.skip_reason.skip_message or "")
    assert landing.requested() == ["notes.one"]


def test_a_replaced_file_is_requested_again_under_another_run_key(landing: Landing) -> None:
    landing.drop("one")
    before = landing.tick()
    landing.index("notes.one")
    assert landing.requested() == []
    landing.drop("one", "Another text altogether.", age=1800)
    after = landing.tick()
    assert landing.requested(after) == ["notes.one"]
    assert {r.run_key for r in before.run_requests or []}.isdisjoint(r.run_key for r in after.run_requests or [])
    landing.index("notes.one")
    assert landing.requested() == []


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
            [request] = answer.run_requests or []
            return request.partition_key or "...".join(request.tags[tag] for tag in (RANGE_START_TAG, RANGE_END_TAG))

        assert tick() == "notes.one"
        domains = {name: {"files": f"{name}/*.jsonl", "format": "jsonl"} for name in ("notes", "more")}
        (landing.directory / "corpus.yaml").write_text(yaml.safe_dump({"domains": domains}))
        assert tick() == "more.two...notes.one"
        (landing.directory / "corpus.yaml").write_text("domains: {notes: {files: x.csv, format: csv}}")
        assert "domains.notes.format: 'csv'" in tick()


@given(order=st.lists(st.integers(0, 99), unique=True), chosen=st.sets(st.integers(0, 99)), at_most=st.integers(1, 5))
def test_neighbours_are_every_wanted_key_once_in_ranges_that_hold_nothing_else(
    order: list[int], chosen: set[int], at_most: int
) -> None:
    keys = [str(number) for number in order]
    wanted = {str(number) for number in chosen}
    found = neighbours(wanted, keys, at_most=at_most)
    assert [key for run in found for key in run] == [key for key in keys if key in wanted]
    for run in found:
        assert 1 <= len(run) <= at_most
        assert run == keys[keys.index(run[0]) : keys.index(run[-1]) + 1], "a range of partitions names just these"
    for one, next_ in pairwise(found):
        apart = keys.index(next_[0]) - keys.index(one[-1])
        assert apart > 1 or len(one) == at_most, "as few runs as may be"


def test_one_run_indexes_many_shards_and_each_has_an_event_of_its_own(landing: Landing) -> None:
    for number in range(2 * SHARDS_PER_RUN + 1):
        landing.drop(f"{number:03}")
    tick = landing.tick()
    assert [len(keys) for keys in landing.runs(tick)] == [SHARDS_PER_RUN, SHARDS_PER_RUN, 1]
    assert len({request.run_key for request in tick.run_requests or []}) == 3
    request = (tick.run_requests or [])[0]
    job = definitions().resolve_job_def("ingest_shards")
    done = job.execute_in_process(instance=landing.instance, tags=dict(request.tags))
    assert done.success
    indexed = landing.instance.get_materialized_partitions(dg.AssetKey("raw_corpus"))
    assert indexed == set(landing.runs(tick)[0])
    landing.drop("001", "Another text altogether.", age=1800)
    landing.drop("002", "Another text altogether.", age=1800)
    landing.drop("005", "Another text altogether.", age=1800)
    assert landing.runs(landing.tick()) == [["notes.001", "notes.002"], ["notes.005"]]


def test_a_shard_indexed_without_the_sensor_is_not_requested(landing: Landing) -> None:
    landing.drop("one")
    landing.instance.add_dynamic_partitions(CORPUS_SHARDS, ["notes.one"])
    landing.index("notes.one")
    assert landing.requested() == []


def test_a_failed_indexing_is_not_looped_and_a_repaired_file_is_requested(landing: Landing) -> None:
    path = landing.drop("one")
    path.write_bytes(b"\xff\xfe not json")
    os.utime(path, (time.time() - 3600,) * 2)
    assert landing.requested() == ["notes.one"]
    landing.index("notes.one")
    assert [landing.requested(), landing.requested()] == [[], []]
    landing.drop("one", age=1800)
    assert landing.requested() == ["notes.one"]


def test_a_removed_file_is_named_and_its_partition_stays(landing: Landing) -> None:
    landing.drop("one")
    gone = landing.drop("two")
    landing.tick()
    gone.unlink()
    result = landing.tick()
    assert landing.requested(result) == []
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
    assert landing.requested() == []
    (landing.directory / "away").rename(path)
    after = landing.tick()
    assert landing.requested(after) == ["notes.two"]
    assert {r.run_key for r in before.run_requests or []}.isdisjoint(r.run_key for r in after.run_requests or [])
    assert landing.requested() == []


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
        batches.append(landing.requested())
        assert len(batches[-1]) <= SHARDS_PER_TICK
        assert len(landing.cursor or "") < 64_000
    seen = [key for batch in batches for key in batch]
    assert len(seen) == len(set(seen)) == 700
