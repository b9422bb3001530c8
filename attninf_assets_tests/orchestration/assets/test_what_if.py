"""The assets that look at scores, and what a new selection says it changed."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from attninf_assets_tests.support.pipeline import (
    PROBES,
    SELECTION,
    SELECTOR,
    SHARDS,
    Pipeline,
    build_pipeline,
    materialized,
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipeline = build_pipeline(tmp_path_factory.mktemp("pipeline"), monkeypatch)
        for key in SHARDS:
            pipeline.run(["raw_corpus"], key)
        pipeline.run(SELECTOR, config=PROBES)
        for key in SHARDS:
            pipeline.run(["attention_influence_scores"], key)
        yield pipeline


def test_a_first_selection_changes_nothing_and_the_next_says_what_it_changed(pipeline: Pipeline) -> None:
    first = materialized(pipeline.run(SELECTION), "selected_subset")
    assert not {"changed", "changed_since", "examples_of_change"} & first.keys()
    pipeline.define(paper={"keep": {"fraction": 0.4}})
    second = materialized(pipeline.run(["score_thresholds", "selected_subset"]), "selected_subset")
    rows = {record.data["domain"]: record.data for record in second["changed"].records}
    assert (rows["letters"]["documents_before"], rows["letters"]["documents"]) == (10, 20)
    assert (rows["letters"]["entered"], rows["letters"]["left"], rows["letters"]["jaccard_documents"]) == (10, 0, 0.5)
    assert rows["letters"]["spearman"] == "1.0"
    assert second["changed_since"].startswith(f"version {first['delta_version']}, by the same selector")
    examples = second["examples_of_change"].splitlines()
    assert examples[0] == "```text"
    assert len(examples) == 2 + 2 * 3
    assert examples[1].startswith("letters entered, rank 11 of 20, score ")
    ids = {row["doc_id"]: row for row in pipeline.rows("selected_subset", domain="letters").to_dicts()}
    doc_id, _, text = examples[1].rpartition(", ")[2].partition(": ")
    assert doc_id in ids
    assert len(text) > 20

    pipeline.define(paper={})
    third = materialized(pipeline.run(["score_thresholds", "selected_subset"]), "selected_subset")
    assert {record.data["left"] for record in third["changed"].records} == {10, 5}
    assert "letters left, rank 11 of 20" in third["examples_of_change"]


def test_a_selection_before_it_that_is_gone_is_no_reason_to_fail(pipeline: Pipeline) -> None:
    pipeline.run(["score_thresholds", "selected_subset"])
    for file in pipeline.lake.files("selected_subset"):
        Path(file).unlink()
    told = materialized(pipeline.run(["selected_subset"]), "selected_subset")
    assert told["changed"].startswith("not compared with version ")
    assert "\n" not in told["changed"]


def test_bands_and_what_if_show_tables_and_pictures(pipeline: Pipeline) -> None:
    pipeline.run(["score_thresholds", "selected_subset"])
    result = pipeline.run(
        ["score_bands", "selection_what_if"], config={"selection_what_if": {"config": {"fractions": [0.2, 0.4]}}}
    )
    bands, what_if = (materialized(result, name) for name in ("score_bands", "selection_what_if"))
    stored = pipeline.rows("score_bands")
    assert len(bands["bands"].records) == len(stored) == bands["dagster/row_count"] == 40
    assert stored["n_documents"].sum() == len(pipeline.rows("scores"))
    rows = [record.data for record in what_if["what_if"].records]
    assert [(row["domain"], row["budget"], row["fraction"]) for row in rows] == [
        (domain, budget, fraction)
        for domain in ("letters", "notes")
        for budget in ("documents", "tokens")
        for fraction in (0.2, 0.4)
    ]
    assert (rows[0]["documents"], rows[0]["in_paper"], rows[0]["jaccard_paper"]) == (10, 1.0, 1.0)
    for metadata in (bands, what_if):
        picture = metadata["picture"].partition("base64,")[2].rstrip(")")
        assert base64.b64decode(picture).startswith(b"\x89PNG")
    again = materialized(pipeline.run(["score_bands"]), "score_bands")
    assert again["delta_version"] == bands["delta_version"], "the same bands are not written twice"
