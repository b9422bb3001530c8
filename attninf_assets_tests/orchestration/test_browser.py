"""What a person sees and clicks: the graph, a backfill launched with the mouse, the heat map and the histogram."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
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


_ELSEWHERE = "elsewhere.test"
_HOSTILE = f"""```
# Your session has ended

[Sign in](http://{_ELSEWHERE}/a) ![](http://{_ELSEWHERE}/b.png) http://{_ELSEWHERE}/c

<img src="http://{_ELSEWHERE}/d.png"><a href="http://{_ELSEWHERE}/e">Sign in</a>

```text
</code></pre><img src="http://{_ELSEWHERE}/f.png">"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Pipeline]]:
    """A running system whose shards are indexed and whose selector is found; only the first shard is scored. That one
    holds a text and ids that are full of markup."""
    directory = tmp_path_factory.mktemp("shown")
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        _filled(build_pipeline(directory, monkeypatch)) as (live, pipeline),
    ):
        yield live, pipeline


@contextlib.contextmanager
def _filled(pipeline: Pipeline) -> Iterator[tuple[Live, Pipeline]]:
    texts = pl.read_parquet(pipeline.directory / "source/letters/a.parquet")["text"]
    hostile = pl.DataFrame({"id": [f"{n} {_HOSTILE}" for n in range(25)], "text": [_HOSTILE, *texts[1:]]})
    hostile.write_parquet(pipeline.directory / "source/letters/a.parquet")
    with live_system(pipeline.directory / "home") as live, live.instance() as instance:
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
    scored = [dg.AssetKey("attention_influence_scores")]  # sensors launch backfills of other assets beside it

    def backfills() -> list[Any]:
        return [one for one in pipeline.instance.get_backfills() if one.asset_selection == scored]

    backfill = live.wait("a backfill", backfills)[0]
    live.wait("the backfill's end", lambda: backfills()[0].status.value.startswith("COMPLETED"), seconds=300)
    page.go(f"{live.url}/assets/attention_influence_scores?view=partitions")
    page.wait_for_text("Materialized (3)", "Missing (0)")
    assert set(pipeline.rows("scores")["shard"]) == {key.partition(".")[2] for key in SHARDS}
    runs = pipeline.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill.backfill_id}))
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}


def test_documents_and_their_ids_are_shown_as_text_and_never_as_markup(
    shown: tuple[Live, Pipeline], page: Page
) -> None:
    live, _ = shown
    page.watch_requests()
    page.go(f"{live.url}/assets/raw_corpus?view=partitions&partition={SHARDS[0]}")
    page.wait_for_text("first_documents", "document_bytes")
    _require_shown_as_text(page, "pre code")

    page.go(f"{live.url}/assets/attention_influence_scores?view=partitions&partition={SHARDS[0]}")
    page.wait_for_text("highest", "lowest")
    _require_shown_as_text(page, "td")

    page.evaluate(f"new Image().src = 'http://{_ELSEWHERE}/canary'")
    page.wait_for("true", "events")
    assert [url for url in page.requested if not url.startswith((live.url, "data:"))] == [f"http://{_ELSEWHERE}/canary"]


def _require_shown_as_text(page: Page, where: str) -> None:
    """The markup is there, as text within these elements, and no element was made of it."""
    within = (
        f"[...document.querySelectorAll({where!r})].some(e => e.innerText.includes('[Sign in](http://{_ELSEWHERE}/a)'))"
    )
    page.wait_for(within, "the document's text")
    made = f"""[...document.querySelectorAll('a, img')].map(e => e.href ?? e.src)
      .filter(address => address.includes({_ELSEWHERE!r}))"""
    assert page.evaluate(made) == []
    headings = "[...document.querySelectorAll('h1, h2')].filter(e => e.innerText.includes('Your session')).length"
    assert page.evaluate(headings) == 0
