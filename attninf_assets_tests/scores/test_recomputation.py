"""Stored scores computed once more: right ones agree, a wrong one is named though its row is consistent in itself."""

from collections.abc import Iterator
from dataclasses import replace

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from attninf_assets.cli import app
from attninf_assets.influence.document_score import DocumentScore
from attninf_assets.scores.recomputation import Recomputed, _drawn
from attninf_assets.store.schemas import TABLES
from attninf_assets_tests.support.pipeline import PROBES, SELECTOR, SHARDS, Pipeline, build_pipeline

_SHORT_WINDOWS = {**PROBES, "retrieval_heads": {"config": {"max_tokens": 40, "numeric_class": "float32"}}}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Two scored shards, whose documents have one window or several."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipeline = build_pipeline(tmp_path_factory.mktemp("verify"), monkeypatch)
        keys = SHARDS[:2]
        for key in keys:
            pipeline.run(["raw_corpus"], key)
        pipeline.run(SELECTOR, config=_SHORT_WINDOWS)
        for key in keys:
            pipeline.run(["attention_influence_scores"], key)
        yield pipeline


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["verify", *arguments])


def test_right_scores_agree_and_a_wrong_one_is_named(scored: Pipeline) -> None:
    done = verify("--all", "--sample", "100")
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert done.stderr.splitlines()[-1] == "50 scores computed once more, 0 differ"

    where = {"domain": "letters", "shard": "b"}
    rows = scored.rows("scores", **where)
    wrong = pl.int_range(pl.len()) == 7
    spoiled = rows.with_columns(
        loss_reference=pl.when(wrong).then(pl.col("loss_reference") + 0.01).otherwise(pl.col("loss_reference"))
    ).with_columns(score=(pl.col("loss_reference") - pl.col("loss_base")) / pl.col("loss_base"))
    scored.lake.replace("scores", spoiled.to_arrow().cast(TABLES["scores"]), where=where)
    done = verify("letters.a", "letters.b", "--sample", "100")
    assert done.exit_code == 3
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"letters.b: {rows['doc_id'][7]}: stored ")
    scored.lake.replace("scores", rows.to_arrow().cast(TABLES["scores"]), where=where)


def test_a_seed_draws_the_same_documents_and_another_others(scored: Pipeline) -> None:
    stored = scored.lake.read("scores", where={"domain": "letters", "shard": "a"})
    drawn = [set(_drawn(table, n=5, seed=seed)) for table, seed in ((stored, "0"), (stored[::-1], "0"), (stored, "1"))]
    assert len(drawn[0]) == 5
    assert drawn[0] == drawn[1] != drawn[2]


@given(
    lengths=st.lists(st.integers(0, 2000), min_size=1, max_size=30),
    n=st.integers(1, 5),
    most_tokens=st.integers(0, 3000),
    seed=st.text(max_size=3),
)
def test_as_many_are_drawn_as_fit_and_one_at_least(lengths: list[int], n: int, most_tokens: int, seed: str) -> None:
    stored = pa.table({"doc_id": [str(number) for number in range(len(lengths))], "n_tokens": lengths})
    drawn = _drawn(stored, n=n, seed=seed, most_tokens=most_tokens)
    assert 1 <= len(drawn) <= n
    assert sum(row["n_tokens"] for row in drawn.values()) <= most_tokens or len(drawn) == 1
    assert drawn.items() <= _drawn(stored, n=n, seed=seed).items()


@pytest.mark.parametrize("arguments", [[], ["letters.a", "--all"]])
def test_what_to_verify_is_said_in_one_way(scored: Pipeline, arguments: list[str]) -> None:
    done = verify(*arguments)
    assert (done.exit_code, done.stderr) == (2, "attninf verify: give partition keys, or --all\n")


def test_every_part_of_a_row_is_compared() -> None:
    found = DocumentScore("a", 10, 2.0, 3.0)
    right = Recomputed("a", 10, 2.0, 3.0, 0.5, found, tolerance=1e-3)
    assert right.agrees
    assert replace(right, score=0.5005, loss_base=2.001, loss_reference=3.001).agrees
    assert not replace(right, n_tokens=11).agrees
    assert not replace(right, score=None).agrees
    assert not replace(right, score=0.502).agrees
    assert not replace(right, loss_base=4.0, loss_reference=6.0).agrees
    assert replace(right, score=None, found=DocumentScore("a", 10, 0.0, 0.0), loss_base=0, loss_reference=0).agrees
