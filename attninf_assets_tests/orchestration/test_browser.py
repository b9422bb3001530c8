"""What a person sees and clicks: the graph, a backfill launched with the mouse, the heat map and the histogram."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets_tests.support.pipeline import PROBES, SELECTOR, SHARDS, Pipeline, build_pipeline
from benchmarks.rigs.browser import Page, find_chromium, open_page
from benchmarks.rigs.live import Live, live_system

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_chromium() is None, reason="chromium is not installed (apt-get install chromium)"),
]
_LOCATION = "locations/__repository__@attninf_assets"


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Live, Pipeline]]:
    """A running system whose shards are indexed and whose selector is found; only the first shard is scored."""
    pipeline = build_pipeline(tmp_path, monkeypatch)
    with live_system(tmp_path / "home") as live, live.instance() as instance:
        instance.add_dynamic_partitions(CORPUS_SHARDS, SHARDS)
        pipeline = dataclasses.replace(pipeline, instance=instance)
        for key in SHARDS:
            pipeline.run(["raw_corpus"], key)
        pipeline.run(SELECTOR, config=PROBES)
        pipeline.run(["attention_influence_scores"], SHARDS[0])
        yield live, pipeline


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with open_page(tmp_path / "profile") as page:
        yield page


def picture(page: Page, alternative: str) -> tuple[int, int]:
    """Width and height of a picture, once it has been drawn."""
    found = f"document.querySelector('img[alt=\"{alternative}\"]')"
    width, height = page.wait_for(
        f"{found}?.complete && {found}.naturalWidth && [{found}.naturalWidth, {found}.naturalHeight]", alternative
    )
    return int(width), int(height)


def test_a_person_sees_the_graph_and_the_pictures_and_launches_a_backfill(
    shown: tuple[Live, Pipeline], page: Page
) -> None:
    live, pipeline = shown
    page.go(f"{live.url}/{_LOCATION}/asset-groups/selector/lineage")
    page.wait_for_text("selector_model", "retrieval_probes", "retrieval_heads")

    page.go(f"{live.url}/assets/retrieval_heads?view=overview")
    page.wait_for_text("heat_map", "selector_fingerprint")
    page.click("[Show Markdown]")
    assert min(picture(page, "retrieval score of every head")) > 100

    page.go(f"{live.url}/assets/attention_influence_scores?view=partitions&partition={SHARDS[0]}")
    page.wait_for_text(*SHARDS, "histogram")
    page.click("[Show Markdown]")
    assert min(picture(page, "histogram of attention influence scores")) > 100

    page.go(f"{live.url}/assets/attention_influence_scores?view=partitions")
    page.wait_for_text(*SHARDS)
    page.click("Materialize...", "Materialize…", "Materialize")
    page.wait_for_text("0 partitions", "Launch backfill")
    page.click("Missing")
    page.wait_for_text("2 partitions")
    page.click("Launch backfill")
    backfill = live.wait("a backfill", pipeline.instance.get_backfills)[0]
    assert [key.to_user_string() for key in backfill.asset_selection or []] == ["attention_influence_scores"]
    live.wait(
        "the backfill's end",
        lambda: pipeline.instance.get_backfills()[0].status.value.startswith("COMPLETED"),
        seconds=300,
    )
    page.go(f"{live.url}/assets/attention_influence_scores?view=partitions")
    page.wait_for_text("Materialized (3)", "Missing (0)")
    assert set(pipeline.rows("scores")["shard"]) == {key.partition(".")[2] for key in SHARDS}
    runs = pipeline.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill.backfill_id}))
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
