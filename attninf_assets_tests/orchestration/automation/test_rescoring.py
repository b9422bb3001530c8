"""What the automation requests, told tick by tick over the project's own definitions."""

import datetime

import dagster as dg
import pytest

from attninf_assets.definitions import definitions
from attninf_assets.influence.selector import SCORING_VERSION
from attninf_assets_tests.support.automation_story import DEFINITIONS, MIX, PREVIEW, SCORES, SELECTION, Story

ALL = {"letters.a", "letters.b", "notes.first"}
FOLLOW = {asset: {"paper"} for asset in SELECTION}  # and once they are made, the mix
MIXED = {MIX: {""}}


@pytest.fixture
def story() -> Story:
    return Story()


def test_nothing_is_requested_of_an_empty_corpus(story: Story) -> None:
    assert [story.tick(), story.tick()] == [{}, {}]


def test_shards_wait_for_a_selector_then_are_scored_then_selected(story: Story) -> None:
    story.shards(*ALL)
    story.selections(paper="paper 1")
    assert story.tick() == {}
    story.made("retrieval_heads", version="heads 1")
    assert story.tick() == {SCORES: ALL}
    runs = {key: story.begin(SCORES, key) for key in sorted(ALL)}
    assert story.tick() == {}
    for key, run in runs.items():
        story.land(run, SCORES, key, version="heads 1")
    assert story.tick() == FOLLOW
    story.selected("paper")
    assert story.tick() == MIXED
    story.made(MIX)
    assert [story.tick(), story.tick()] == [{}, {}]


def test_what_is_settled_stays_settled(story: Story) -> None:
    story.settled()
    assert [story.tick(), story.tick()] == [{}, {}]


def test_an_identical_rebuild_requests_nothing(story: Story) -> None:
    story.settled("heads 1")
    story.made("retrieval_heads", version="heads 1")
    story.made("raw_corpus", *ALL, version="1")
    assert [story.tick(), story.tick()] == [{}, {}]


def test_new_heads_request_every_shard_once(story: Story) -> None:
    story.settled()
    story.made("retrieval_heads", version="heads 2")
    assert story.tick() == {SCORES: ALL}
    story.made(SCORES, *ALL, version="heads 2")
    assert story.tick() == FOLLOW
    assert story.tick() == {}


def test_one_changed_shard_requests_that_shard(story: Story) -> None:
    story.settled()
    story.made("raw_corpus", "letters.b", version="2")
    assert story.tick() == {SCORES: {"letters.b"}}


def test_a_new_shard_is_requested_when_it_is_indexed(story: Story) -> None:
    story.settled()
    story.instance.add_dynamic_partitions("corpus_shards", ["notes.second"])
    assert story.tick() == {}
    story.made("raw_corpus", "notes.second", version="1")
    assert story.tick() == {SCORES: {"notes.second"}}


def test_a_failure_is_not_looped_and_holds_the_selection_back(story: Story) -> None:
    story.settled()
    story.made("retrieval_heads", version="heads 2")
    assert story.tick() == {SCORES: ALL}
    runs = {key: story.begin(SCORES, key) for key in sorted(ALL)}
    for key in ("letters.a", "letters.b"):
        story.land(runs[key], SCORES, key, version="heads 2")
    story.fail(runs["notes.first"])
    assert [story.tick(), story.tick(), story.tick()] == [{}, {}, {}]
    story.land(story.begin(SCORES, "notes.first"), SCORES, "notes.first", version="heads 2")
    assert story.tick() == FOLLOW


def test_a_first_scoring_that_failed_is_requested_again_when_its_shard_is_repaired(story: Story) -> None:
    story.settled()
    story.shards("notes.second")
    assert story.tick() == {SCORES: {"notes.second"}}
    story.fail(story.begin(SCORES, "notes.second"))
    assert [story.tick(), story.tick()] == [{}, {}]
    story.made("raw_corpus", "notes.second", version="2")
    assert story.tick() == {SCORES: {"notes.second"}}


def test_a_selector_changed_while_an_old_run_is_in_flight_is_not_lost(story: Story) -> None:
    story.settled()
    running = story.begin(SCORES, "letters.a")
    story.made("retrieval_heads", version="heads 2")
    assert story.tick() == {SCORES: ALL - {"letters.a"}}
    story.made(SCORES, *(ALL - {"letters.a"}), version="heads 2")
    assert story.tick() == {}
    story.land(running, SCORES, "letters.a", version="heads 1")
    assert story.tick() == {SCORES: {"letters.a"}}
    story.made(SCORES, "letters.a", version="heads 2")
    assert story.tick() == FOLLOW


def test_a_selector_changed_in_the_half_minute_after_a_request_is_not_lost(story: Story) -> None:
    story.settled()
    story.made("retrieval_heads", version="heads 2")
    assert story.tick() == {SCORES: ALL}
    runs = {key: story.begin(SCORES, key) for key in sorted(ALL)}
    story.made("retrieval_heads", version="heads 3")
    assert story.tick() == {}
    for key, run in runs.items():
        story.land(run, SCORES, key, version="heads 2")
    assert story.tick() == {SCORES: ALL}
    story.made(SCORES, *ALL, version="heads 3")
    assert story.tick() == FOLLOW


def test_a_backfill_by_hand_just_before_the_tick_is_asked_for_once_more_and_no_oftener(story: Story) -> None:
    """The repetition costs no device time: a current partition is left as it is (see test_pipeline)."""
    story.settled()
    story.made("retrieval_heads", version="heads 2")
    story.made(SCORES, *ALL, version="heads 2")
    assert story.tick() == {SCORES: ALL}
    story.made(SCORES, *ALL, version="heads 2")
    assert story.tick() == FOLLOW
    assert story.tick() == {}


def test_a_run_of_several_shards_that_breaks_off_leaves_only_the_rest_failed(story: Story) -> None:
    story.settled()
    story.made("retrieval_heads", version="heads 2")
    assert story.tick() == {SCORES: ALL}
    run = story.begin(SCORES, "letters.a", to="notes.first")
    story.make(run, SCORES, "letters.a", version="heads 2")
    assert story.tick() == {}
    story.fail(run)
    assert [story.tick(), story.tick()] == [{}, {}]
    story.made("retrieval_heads", version="heads 3")
    assert story.tick() == {SCORES: ALL}
    again = story.begin(SCORES, "letters.a", to="notes.first")
    for key in sorted(ALL):
        story.make(again, SCORES, key, version="heads 3")
    story.end(again)
    assert story.tick() == FOLLOW
    assert story.tick() == {}


def test_a_selector_changed_during_a_run_of_several_shards_is_not_lost_for_any_of_them(story: Story) -> None:
    """The run itself takes the new selector up from its next shard on (see test_partition_runs)."""
    story.settled()
    story.made("raw_corpus", *ALL, version="2")
    assert story.tick() == {SCORES: ALL}
    run = story.begin(SCORES, "letters.a", to="notes.first")
    story.make(run, SCORES, "letters.a", version="2, heads 1")
    assert story.tick() == {}
    story.made("retrieval_heads", version="heads 2")
    story.make(run, SCORES, "letters.b", version="2, heads 2")
    assert story.tick() == {SCORES: {"letters.a", "letters.b"}}
    story.made(SCORES, "letters.a", "letters.b", version="2, heads 2")
    assert story.tick() == {}
    story.make(run, SCORES, "notes.first", version="2, heads 2")
    story.end(run)
    assert story.tick() == {SCORES: {"notes.first"}}
    story.made(SCORES, "notes.first", version="2, heads 2")
    assert story.tick() == FOLLOW


def test_selection_waits_until_every_shard_is_scored_by_the_new_selector(story: Story) -> None:
    story.settled()
    story.made("retrieval_heads", version="heads 2")
    story.tick()
    runs = {key: story.begin(SCORES, key) for key in sorted(ALL)}
    for key in ("letters.a", "letters.b"):
        story.land(runs[key], SCORES, key, version="heads 2")
        assert story.tick() == {}
    story.land(runs["notes.first"], SCORES, "notes.first", version="heads 2")
    assert story.tick() == FOLLOW


def test_a_shard_that_was_never_indexed_holds_the_selection_back_until_it_is_scored_or_retired(story: Story) -> None:
    """By hand `score_thresholds` refuses it as well (see test_pipeline), and a check names it (see test_coverage)."""
    story.settled()
    story.instance.add_dynamic_partitions("corpus_shards", ["notes.second", "notes.third"])
    story.made(SCORES, "letters.b", version="2")
    assert [story.tick(), story.tick()] == [{}, {}]
    story.made("raw_corpus", "notes.second", version="1")
    assert story.tick() == {SCORES: {"notes.second"}}
    story.made(SCORES, "notes.second", version="1")
    assert [story.tick(), story.tick()] == [{}, {}]
    story.instance.delete_dynamic_partition("corpus_shards", "notes.third")
    assert story.tick() == FOLLOW


def test_a_new_code_version_requests_nothing(story: Story) -> None:
    """It marks as stale, in the UI; what is to be made again is said by data versions and by people."""
    story.settled()
    story.definitions = story.definitions.map_asset_specs(
        func=lambda spec: spec.replace_attributes(code_version=f"after {spec.code_version}")
    )
    assert story.definitions.resolve_asset_graph().get(dg.AssetKey(SCORES)).code_version == f"after {SCORING_VERSION}"
    assert [story.tick(), story.tick()] == [{}, {}]


@pytest.mark.parametrize("ticks_meanwhile", [False, True])
def test_after_a_rescoring_thresholds_selection_and_mix_are_requested_once(story: Story, ticks_meanwhile: bool) -> None:
    """The first two are made in one run: its thresholds are new to the selection only if it did not read them."""
    story.settled("heads 1")
    story.made("retrieval_heads", version="heads 2")
    assert story.tick() == {SCORES: ALL}
    story.made(SCORES, *ALL, version="heads 2")
    assert story.tick() == FOLLOW
    run = story.begin(SELECTION[0], "paper", then=SELECTION[1:])
    story.make(run, SELECTION[0], "paper", version="heads 2")
    assert not ticks_meanwhile or story.tick() == {}
    story.make(run, SELECTION[1], "paper", version="heads 2")
    assert not ticks_meanwhile or story.tick() == MIXED  # what is selected is there, whatever its run does still
    story.end(run)
    assert story.tick() == ({} if ticks_meanwhile else MIXED)
    mix = story.begin(MIX)
    assert not ticks_meanwhile or story.tick() == {}
    story.land(mix, MIX, version="heads 2")
    assert [story.tick(), story.tick()] == [{}, {}]


def test_selection_and_mix_follow_thresholds_and_nothing_else_that_they_read(story: Story) -> None:
    """Neither a shard that was never indexed nor one that is being indexed or scored keeps them waiting."""
    story.settled()
    story.instance.add_dynamic_partitions("corpus_shards", ["notes.second"])
    indexing, scoring = story.begin("raw_corpus", "letters.a"), story.begin(SCORES, "letters.b")
    assert story.tick() == {}
    story.made("score_thresholds", "paper", version="by hand")
    assert story.tick() == {"selected_subset": {"paper"}}
    story.made("selected_subset", "paper", version="by hand")
    assert story.tick() == MIXED
    story.made(MIX, version="by hand")
    assert story.tick() == {}
    story.land(indexing, "raw_corpus", "letters.a", version="2")
    story.land(scoring, SCORES, "letters.b", version="2")
    assert story.tick() == {SCORES: {"letters.a"}}


def test_thresholds_wait_for_scores_and_not_for_documents(story: Story) -> None:
    """A shard that is indexed anew, to the same documents, keeps them no longer than its scores do."""
    story.settled()
    indexing = story.begin("raw_corpus", "letters.a")
    story.made(SCORES, "letters.b", version="2")
    assert story.tick() == FOLLOW
    story.land(indexing, "raw_corpus", "letters.a", version="1")
    assert [story.tick(), story.tick()] == [{}, {}]


def test_a_selection_that_failed_after_its_thresholds_waits_for_a_person_or_the_next_change(story: Story) -> None:
    story.settled()
    story.made(SCORES, "letters.b", version="2")
    assert story.tick() == FOLLOW
    run = story.begin("score_thresholds", "paper", then=["selected_subset"])
    story.make(run, "score_thresholds", "paper", version="2")
    story.fail(run)
    assert [story.tick(), story.tick()] == [{}, {}]
    story.made(SCORES, "letters.b", version="3")
    assert story.tick() == FOLLOW


def test_a_changed_definition_requests_its_selection_and_no_other(story: Story) -> None:
    story.settled()
    story.selections(lean="lean 1")
    assert story.tick() == {asset: {"lean"} for asset in SELECTION}
    story.selected("lean", version="1")
    assert [story.tick(), story.tick()] == [MIXED, {}]  # which finds that it is not of this one
    story.made(DEFINITIONS, "lean", version="lean 2")
    assert story.tick() == {asset: {"lean"} for asset in SELECTION}
    story.selected("lean", version="2")
    assert [story.tick(), story.tick()] == [MIXED, {}]
    story.made(DEFINITIONS, "paper", "lean", version="lean 2")
    assert story.tick() == FOLLOW


def test_a_new_shard_renews_every_selection_and_then_mixes(story: Story) -> None:
    story.settled()
    story.selections(lean="lean 1")
    story.tick()
    story.selected("lean", version="1")
    story.tick()
    story.made(SCORES, "letters.b", version="2")
    assert story.tick() == {asset: {"lean", "paper"} for asset in SELECTION}
    run = story.begin(SELECTION[0], "paper", then=SELECTION[1:])
    story.selected("lean", version="2")
    assert story.tick() == {}  # while one is at work
    for asset in SELECTION:
        story.make(run, asset, "paper", version="2")
    story.end(run)
    assert [story.tick(), story.tick()] == [MIXED, {}]


def test_another_selection_to_mix_is_mixed_at_the_next_tick(story: Story) -> None:
    story.settled()
    story.selections(lean="lean 1")
    story.tick()
    story.selected("lean", version="1")
    story.tick()
    story.made(MIX, version="paper's")
    assert story.tick() == {}
    story.made("mix_definition", version="lean")
    assert [story.tick(), story.tick()] == [MIXED, {}]


def test_a_selection_that_cannot_be_made_keeps_no_other_and_not_the_mix(story: Story) -> None:
    story.settled()
    story.selections(huge="huge 1")
    assert story.tick() == {asset: {"huge"} for asset in SELECTION}
    story.fail(story.begin(SELECTION[0], "huge", then=SELECTION[1:]))
    assert [story.tick(), story.tick()] == [{}, {}]
    story.made(DEFINITIONS, "paper", version="paper 2")
    assert story.tick() == FOLLOW
    story.selected("paper", version="2")
    assert story.tick() == MIXED


def test_where_paper_is_not_defined_another_is_mixed(story: Story) -> None:
    story.shards(*ALL)
    story.selections(lean="lean 1")
    story.made("retrieval_heads", version="heads 1")
    story.made(SCORES, *ALL, version="heads 1")
    assert story.tick() == {asset: {"lean"} for asset in SELECTION}
    story.selected("lean", version="1")
    assert story.tick() == MIXED
    story.made(MIX, version="1")
    assert story.tick() == {}


def test_nightly_waits_for_the_night(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_RESCORE", "nightly")
    story.settled()
    story.made("retrieval_heads", version="heads 2")
    evening = datetime.datetime(2026, 11, 23, 22, tzinfo=datetime.UTC)
    night = datetime.datetime(2026, 11, 24, 2, 0, 5, tzinfo=datetime.UTC)
    assert [story.tick(), story.tick(evening)] == [{}, {}]
    assert story.tick(night) == {SCORES: ALL}
    story.made(SCORES, *ALL, version="heads 2")
    assert story.tick() == FOLLOW
    story.made("raw_corpus", "letters.a", version="2")
    assert [story.tick(), story.tick(night.replace(hour=15))] == [{}, {}]
    assert story.tick(night.replace(day=25)) == {SCORES: {"letters.a"}}


def test_nightly_a_run_in_flight_at_the_instant_is_followed_later_that_night(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNINF_RESCORE", "nightly")
    story.settled()
    running = story.begin(SCORES, "letters.a")
    story.made("retrieval_heads", version="heads 2")
    assert story.tick() == {}
    assert story.tick(datetime.datetime(2026, 11, 24, 2, 0, 5, tzinfo=datetime.UTC)) == {SCORES: ALL - {"letters.a"}}
    story.land(running, SCORES, "letters.a", version="heads 1")
    assert story.tick() == {SCORES: {"letters.a"}}


def test_nightly_selection_waits_with_the_stale_scores(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_RESCORE", "nightly")
    story.settled()
    story.made("retrieval_heads", version="heads 2")
    story.tick()
    story.made(SCORES, "letters.a", version="heads 2")
    assert [story.tick(), story.tick()] == [{}, {}]


def test_on_demand_requests_nothing_and_has_no_sensor(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_RESCORE", "on_demand")
    assert [sensor.name for sensor in definitions().sensors or []] == [
        "new_shards",
        "coverage_watch",
        "feature_renewal",
        "selections",
    ]
    story.shards(*ALL)
    story.made("retrieval_heads", version="heads 1")
    assert story.tick() == {}


def test_rescoring_is_off_until_it_is_turned_on_and_ingestion_is_on() -> None:
    states = {sensor.name: sensor.default_status for sensor in definitions().sensors or []}
    running, stopped = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED
    always = dict.fromkeys(["new_shards", "coverage_watch", "feature_renewal", "selections"], running)
    assert states == {**always, "rescoring": stopped}


def test_an_unknown_policy_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_RESCORE", "weekly")
    with pytest.raises(ValueError, match=r"ATTNINF_RESCORE='weekly': not one of at_once, nightly, on_demand"):
        definitions()


def test_under_a_budget_scores_wait_for_a_preview_that_succeeded(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_BUDGET", "100")
    story.settled()
    story.made(PREVIEW)
    assert story.tick() == {}
    story.made("retrieval_heads", version="heads 2")
    assert story.tick() == {PREVIEW: {""}}
    preview = story.begin(PREVIEW)
    assert story.tick() == {}
    story.fail(preview)
    assert [story.tick(), story.tick()] == [{}, {}]
    story.land(story.begin(PREVIEW), PREVIEW, version="confirmed")
    assert story.tick() == {SCORES: ALL}
