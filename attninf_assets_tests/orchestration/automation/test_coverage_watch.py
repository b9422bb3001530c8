"""When the coverage is renewed: tick by tick, over an instance with runs and events."""

import dagster as dg
import pytest

from attninf_assets.orchestration.automation import coverage_watch as module
from attninf_assets.orchestration.automation.coverage_watch import RENEWED_EVERY, coverage_job, coverage_watch
from attninf_assets_tests.support.automation_story import SCORES, Story


class Watch:
    """The sensor's ticks, by a clock that stands until it is moved."""

    def __init__(self, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
        self.story, self.now = story, 1_000_000.0
        self.cursor: str | None = None
        monkeypatch.setattr(module.time, "time", lambda: self.now)

    def tick(self, *, after: float = 60) -> str | None:
        """Why nothing is requested; None where a renewal is."""
        self.now += after
        with dg.build_sensor_context(instance=self.story.instance, cursor=self.cursor) as context:
            result = coverage_watch(context)
        if isinstance(result, dg.SkipReason):
            return result.skip_message
        assert isinstance(result, dg.SensorResult)
        assert len(result.run_requests or []) == 1
        self.cursor = result.cursor
        return None


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(Story(), monkeypatch)


def test_it_renews_once_after_a_change_and_then_rests(watch: Watch) -> None:
    assert watch.tick() == "there is no selector yet"
    watch.story.settled()
    assert [watch.tick(), watch.tick(), watch.tick(after=10_000)] == [None, *["nothing has changed"] * 2]
    watch.story.made("raw_corpus", "letters.a", version="2")
    assert [watch.tick(), watch.tick()] == [None, "nothing has changed"]
    watch.story.instance.add_dynamic_partitions("corpus_shards", ["notes.second"])
    assert [watch.tick(), watch.tick()] == [None, "nothing has changed"]


def test_while_shards_are_scored_it_renews_every_five_minutes_and_once_when_they_are_done(watch: Watch) -> None:
    watch.story.settled()
    assert watch.tick() is None
    run = watch.story.begin(SCORES, "letters.a", to="notes.first")
    minutes = [watch.tick() for _ in range(12)]
    assert [minute for minute, said in enumerate(minutes, start=1) if said is None] == [5, 10]
    assert minutes[0] == "renewed 60 s ago; 1 runs at work"
    assert RENEWED_EVERY == 300
    watch.story.make(run, SCORES, "letters.a", version="heads 2")
    assert watch.tick() is not None
    watch.story.fail(run)
    assert [watch.tick(), watch.tick()] == [None, "nothing has changed"]


def test_an_indexing_that_the_other_sensor_requested_is_seen_and_its_failure_too(watch: Watch) -> None:
    """Runs of a job of their own have no selection of assets."""
    watch.story.settled()
    assert watch.tick() is None
    job = watch.story.definitions.resolve_job_def("ingest_shards")
    run = watch.story.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": "letters.a"}
    )
    assert run.asset_selection is None
    assert watch.tick(after=RENEWED_EVERY) is None
    watch.story.fail(run)
    assert [watch.tick(), watch.tick()] == [None, "nothing has changed"]


def test_never_two_at_once_and_one_that_fails_is_not_looped(watch: Watch) -> None:
    watch.story.settled()
    assert watch.tick() is None
    renewal = watch.story.instance.create_run_for_job(
        watch.story.definitions.resolve_job_def(coverage_job.name), status=dg.DagsterRunStatus.STARTED
    )
    watch.story.made("raw_corpus", "letters.a", version="2")
    assert watch.tick() == "a renewal is under way"
    watch.story.fail(renewal)
    assert [watch.tick(), watch.tick()] == [None, "nothing has changed"]


def test_its_job_makes_the_coverage_and_judges_which_shards_a_selection_waits_for(watch: Watch) -> None:
    layer = watch.story.definitions.resolve_job_def("renew_coverage").asset_layer
    assert {key.to_user_string() for key in layer.selected_asset_keys} == {"score_coverage"}
    assert {key.name for key in layer.asset_graph.asset_check_keys} >= {
        "every_shard_is_current",
        "selection_waits_for_no_shard",
    }
