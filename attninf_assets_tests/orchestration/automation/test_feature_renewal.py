"""Features follow the shards, whatever the rescoring policy; what is made of them follows once an hour."""

import datetime

import pytest

from attninf_assets_tests.support.automation_story import SCORES, Story

FEATURES, NEAR, CONFOUNDERS = "document_features", "near_duplicates", "score_confounders"
ALL = {"letters.a", "letters.b", "notes.first"}
_WATCHED = (FEATURES, NEAR, CONFOUNDERS)


def _hour(hour: int) -> datetime.datetime:
    return datetime.datetime(2026, 11, 23, hour, 0, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize("policy", ["on_demand", "at_once"])
def test_an_indexed_shard_is_measured_without_a_selector_and_once(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    monkeypatch.setenv("ATTNINF_RESCORE", policy)
    story = Story()
    assert story.tick(watching=_WATCHED) == {}
    story.shards(*ALL)
    assert story.tick(watching=_WATCHED) == {FEATURES: ALL}
    story.made(FEATURES, *ALL, version="1")
    assert story.tick(watching=_WATCHED) == {}
    story.made("raw_corpus", *ALL, version="1")
    assert story.tick(watching=_WATCHED) == {}, "what is the same is not measured again"
    story.made("raw_corpus", "letters.b", version="2")
    assert story.tick(watching=_WATCHED) == {FEATURES: {"letters.b"}}


def test_a_failure_is_not_looped() -> None:
    story = Story()
    story.shards("letters.a")
    assert story.tick(watching=_WATCHED) == {FEATURES: {"letters.a"}}
    story.fail(story.begin(FEATURES, "letters.a"))
    assert [story.tick(watching=_WATCHED), story.tick(watching=_WATCHED)] == [{}, {}]


def test_what_is_made_of_features_waits_for_the_full_hour_and_for_work_to_end() -> None:
    story = Story()
    story.shards(*ALL)
    story.made(FEATURES, *ALL, version="1")
    assert story.tick(_hour(12), watching=_WATCHED) == {}, "an hour is known to begin from the second tick on"
    assert story.tick(watching=_WATCHED) == {}
    assert story.tick(_hour(13), watching=_WATCHED) == {NEAR: {""}}
    story.made(NEAR, version="1")
    story.made("retrieval_heads", version="heads 1")
    story.made(SCORES, *ALL, version="1")
    assert story.tick(watching=_WATCHED) == {CONFOUNDERS: {""}}, "due since one, and now there is what it needs"
    story.made(CONFOUNDERS)
    story.made(SCORES, "letters.a", version="2")
    running = story.begin(SCORES, "letters.b")
    assert [story.tick(watching=_WATCHED), story.tick(_hour(14), watching=_WATCHED)] == [{}, {}]
    story.land(running, SCORES, "letters.b", version="2")
    assert story.tick(watching=_WATCHED) == {CONFOUNDERS: {""}}
    story.made(CONFOUNDERS)
    assert story.tick(_hour(15), watching=_WATCHED) == {}


def test_scores_are_requested_whatever_becomes_of_the_features() -> None:
    story = Story()
    story.shards(*ALL)
    story.made("retrieval_heads", version="heads 1")
    for key in sorted(ALL):
        story.fail(story.begin(FEATURES, key))
    assert story.tick() == {SCORES: ALL}
