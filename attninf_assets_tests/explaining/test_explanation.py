"""`attninf explain` on a small lake: what it decides is what the tables hold, and what does not agree is said."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from attninf_assets.cli import app
from attninf_assets.definitions import definitions
from attninf_assets.orchestration.display.reason import reason_of_top_document
from attninf_assets.store.schemas import TABLES
from attninf_assets_tests.support.pipeline import Pipeline, build_pipeline, put_back

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Everything materialized once; every fifth text says its sentence twice, which a retrieval head copies."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipeline = build_pipeline(tmp_path_factory.mktemp("explained"), monkeypatch)
        pipeline.run_everything()
        yield pipeline


@pytest.fixture
def changed(selected: Pipeline, tmp_path: Path) -> Iterator[Pipeline]:
    """The same, put back afterwards."""
    source = selected.directory / "source"
    shutil.copytree(source, tmp_path / "source")
    with put_back(selected, tmp_path / "root"):
        yield selected
    shutil.rmtree(source)
    shutil.copytree(tmp_path / "source", source)


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["explain", *arguments])


def told(*arguments: str) -> dict:
    done = explain(*arguments, "--json")
    assert done.exit_code in (0, 3), done.output
    return {**json.loads(done.stdout), "exit_code": done.exit_code}


def test_decision_rank_and_score_are_those_of_the_tables(selected: Pipeline) -> None:
    ranked = selected.rows("scores", domain="letters").sort("score", "doc_id", descending=True)
    kept = set(selected.rows("selected_subset", domain="letters")["doc_id"])
    n = len(kept)
    for rank in (1, n, n + 1, len(ranked)):
        row = ranked.row(rank - 1, named=True)
        found = told("letters", row["doc_id"])
        assert found["exit_code"] == 0
        [verdict] = found["verdicts"]
        assert verdict["is_in"] == (row["doc_id"] in kept) == (rank <= n)
        assert ("below" in verdict["reason"]) == (rank > n)
        assert ("the last one that is kept" in verdict["reason"]) == (rank == n)
        assert found["facts"]["rank in the domain"] == f"{rank} of {len(ranked)}"
        assert found["facts"]["score"] == f"{row['score']:.4f}"
        assert [agrees for agrees, _ in found["findings"]] == [True, True]
        shown = "".join(piece["text"] for window in found["windows"] for piece in window["pieces"])
        shard = pl.read_parquet(selected.directory / "source/letters" / f"{row['shard']}.parquet")
        assert shown == shard.filter(pl.col("id") == row["doc_id"])["text"].item()
        rises = sum(piece["rise"] for window in found["windows"] for piece in window["pieces"])
        assert rises == pytest.approx((row["loss_reference"] - row["loss_base"]) * row["n_tokens"], abs=1e-2)


def test_a_repeated_sentence_is_told_to_be_copied_from_its_first_time(selected: Pipeline) -> None:
    found = told("letters", "letters.a-5")
    assert found["n_strong"] >= 15
    for one in found["raised"]:
        source = one["sources"][0]
        assert (source["is_copied"], source["distance"]) == (True, found["n_tokens"] // 2 + 1)
        assert source["text"] == one["piece"]["text"]
        assert source["heads"].startswith("L1H2 (")
    done = explain("letters", "letters.a-5")
    assert "in   paper: its score" in done.stdout
    assert "copied from …" in done.stdout


def test_what_is_not_there_is_told_with_where_it_was_looked_for(changed: Pipeline) -> None:
    def complaint(*arguments: str) -> str:
        done = explain(*arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        return done.stderr.strip()

    looked = "is neither in documents nor in scores"
    missing = complaint("letters", "letters.a-99")
    assert f"attninf explain: document 'letters.a-99' of domain 'letters' {looked}" in missing
    assert "nearest: 'letters.a-9'" in missing
    assert complaint("letter", "letters.a-9").endswith(
        "domain 'letter': no document of it is in the tables; there are letters, notes"
    )
    path = changed.directory / "source/letters/a.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(text=pl.when(pl.col("id") == "letters.a-3").then(pl.lit(" ")).otherwise("text")).write_parquet(
        path
    )
    changed.run(["raw_corpus"], "letters.a")
    changed.run(["attention_influence_scores"], "letters.a")
    assert complaint("letters", "letters.a-3").endswith(
        f"{looked}: it is in quarantine, {path}, row 3 was refused: text is only whitespace"
    )


def test_a_text_that_changed_and_a_score_that_is_not_its_own_are_said_plainly(changed: Pipeline) -> None:
    where = {"domain": "letters", "shard": "b"}
    rows = changed.rows("scores", **where)
    spoiled = rows.with_columns(loss_reference=pl.col("loss_reference") + 0.1).with_columns(
        score=(pl.col("loss_reference") - pl.col("loss_base")) / pl.col("loss_base")
    )
    changed.lake.replace("scores", spoiled.to_arrow().cast(TABLES["scores"]), where=where)
    found = told("letters", "letters.b-1")
    assert found["exit_code"] == 3
    assert [agrees for agrees, _ in found["findings"]] == [True, False]
    assert "they differ by more than" in found["findings"][1][1]

    path = changed.directory / "source/letters/a.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(text=pl.col("text") + " And more.").write_parquet(path)
    found = told("letters", "letters.a-1")
    assert found["exit_code"] == 3
    assert found["findings"][0] == [False, "the text is another than was indexed: its sha256 differs"]
    assert "And more." in "".join(piece["text"] for piece in found["windows"][0]["pieces"])
    path.unlink()
    found = told("letters", "letters.a-1")
    assert (found["exit_code"], found["windows"], found["verdicts"][0]["is_in"]) == (3, [], False)
    assert "letters.a" in found["findings"][0][1]


def test_scores_by_another_selector_are_called_stale_and_null_scores_never_selected(changed: Pipeline) -> None:
    where = {"domain": "letters", "shard": "b"}
    rows = changed.rows("scores", **where)
    mixed = rows.with_columns(
        selector_fingerprint=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("old")).otherwise("selector_fingerprint"),
        score=pl.when(pl.int_range(pl.len()) == 1).then(None).otherwise("score"),
    )
    changed.lake.replace("scores", mixed.to_arrow().cast(TABLES["scores"]), where=where)
    old = told("letters", rows["doc_id"][0])
    assert old["exit_code"] == 3
    assert old["verdicts"][0]["reason"] == "its score is by another selector than the one in use"
    assert "rank in the domain" not in old["facts"]
    assert "it is stale" in old["findings"][1][1]
    null = told("letters", rows["doc_id"][1])
    assert "a null score is never selected" in null["verdicts"][0]["reason"]
    assert null["facts"]["score"] == "null"


def test_a_run_of_the_job_writes_the_page_and_shows_the_decision(selected: Pipeline) -> None:
    job = definitions().resolve_job_def("explain_document")
    config = {"ops": {"explain": {"config": {"domain": "letters", "doc_id": "letters.a-5"}}}}
    done = job.execute_in_process(instance=selected.instance, run_config=config)
    [output] = [event for event in done.all_node_events if event.event_type_value == "STEP_OUTPUT"]
    metadata = {name: value.value for name, value in output.step_output_data.metadata.items()}
    page = Path(str(metadata["page"])).read_text()
    assert page.startswith("<!doctype html>")
    assert "letters.a-5" in page
    assert Path(str(metadata["page"])).is_relative_to(selected.lake.root.uri)


def test_a_whole_run_ends_with_why_its_first_top_document_is_in(selected: Pipeline) -> None:
    resources = definitions().resources or {}
    told = reason_of_top_document(resources["lake"], resources["corpus"], compute=True)
    top = selected.rows("selected_subset", domain="letters").sort("score", "doc_id").row(-1, named=True)
    assert told is not None
    first, second = told.splitlines()
    assert first == f"why is a document in? `attninf explain letters {top['doc_id']}`"
    assert second.startswith(f"  letters {top['doc_id']}: score {top['score']:.4f}, rank 1 of 50; most raised: “")
    assert "copied by L1H2 from" in second
    assert reason_of_top_document(resources["lake"], resources["corpus"], compute=False) == first


def test_selections_and_shards_are_shown_as_documents_to_read(changed: Pipeline) -> None:
    done = changed.run(["selected_subset"])
    (event,) = done.asset_materializations_for_node("selected_subset")
    ranked = changed.rows("scores", domain="letters").sort("score", "doc_id", descending=True)
    shown = str(event.metadata["read_paper_letters"].value)
    headings = [line for line in shown.splitlines() if line.startswith("####")]
    assert headings == ["#### top", "#### below the cut", "#### bottom"]  # the ten at the top are all that are kept
    for place in (0, 9, 10, 49):
        assert f" · {ranked['doc_id'][place]}\n" in shown
        assert f"rank {place + 1} · score {ranked['score'][place]:.4f}" in shown
    (changed.directory / "source/letters/b.parquet").unlink()
    done = changed.run(["selected_subset"])
    (event,) = done.asset_materializations_for_node("selected_subset")
    assert "! 'letters.b': none of the" in str(event.metadata["read_paper_letters"].value)
