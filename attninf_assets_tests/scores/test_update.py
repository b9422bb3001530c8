"""Bringing a partition's scores up to date, through kills, reruns and readers."""

import datetime
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.stored_index import index_and_store
from attninf_assets.influence.engine import Engine
from attninf_assets.scores.staging import STAGED_SCORES, StagedScores
from attninf_assets.scores.update import content_digest, update_partition_scores
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.crashes import (
    SELECTOR,
    ScoringRuns,
    indexed_shard,
    journalled_engine,
    rows_of,
    update,
)
from attninf_assets_tests.support.source_files import landed
from benchmarks.rigs.made_up_text import sentences


def test_a_killed_run_is_continued_and_repeats_at_most_a_chunk(root: Root, tmp_path: Path) -> None:
    runs = ScoringRuns(root, tmp_path)
    assert runs.n_chunks >= 15
    for number, (begun, after) in enumerate(runs.points(6 if root.is_local else 3)):
        outcome = runs.kill_and_run_again(f"point-{number}", begun=begun, after=after)
        assert outcome.whole_between, outcome
        assert outcome.right, outcome
        assert outcome.chunks_repeated <= 1, outcome
        assert outcome.documents_repeated <= outcome.largest_chunk, outcome
    assert rows_of(runs.lake, indexed_shard(runs.lake, tmp_path, "untouched")).equals(runs.old)


def test_readers_see_all_old_rows_or_all_new_ones_at_every_instant(tmp_path: Path) -> None:
    runs = ScoringRuns(Root.at(tmp_path / "root"), tmp_path)
    shard = indexed_shard(runs.lake, tmp_path, "watched")
    process = runs.start(shard)
    seen = []
    while process.is_alive():
        rows = rows_of(runs.lake, shard)
        seen.append("old" if rows.equals(runs.old) else "new" if rows.equals(runs.right) else "neither")
    assert len(seen) > 3
    assert set(seen) <= {"old", "new"}
    assert seen == sorted(seen, reverse=True)
    assert rows_of(runs.lake, shard).equals(runs.right)


def test_two_runs_over_one_partition_at_once_both_end_well_with_the_rows_of_one(root: Root, tmp_path: Path) -> None:
    runs = ScoringRuns(root, tmp_path)
    for begun in (0, runs.n_chunks // 2, runs.n_chunks - 1) if root.is_local else (0, runs.n_chunks - 1):
        together = runs.run_two(f"from-{begun}", begun=begun)
        assert together.succeeded, begun
        assert together.right, begun
        assert together.most_often <= 2, begun


def _no_engine() -> Engine:
    raise AssertionError("nothing has to be scored, so nothing may be loaded")


def _frame(lake: Lake, table: str) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(lake.read(table)))


def test_every_committed_run_leaves_a_row_that_says_what_it_cost(root: Root, tmp_path: Path) -> None:
    lake = Lake(root)
    shard = indexed_shard(lake, tmp_path, "a", n_documents=30)
    first = update(root, shard, tmp_path / "journal")
    again = update_partition_scores(lake, shard, SELECTOR, load=_no_engine, storage_options={})
    assert (again.was_current, again.n_reused, again.table) == (True, 30, first.table)
    shrunk = _frame(lake, "documents").head(20).to_arrow().cast(TABLES["documents"])
    lake.replace("documents", shrunk, where={"domain": "web", "shard": "a"})
    update_partition_scores(lake, shard, SELECTOR, load=_no_engine, storage_options={})
    runs = _frame(lake, "scoring_runs").sort("scores_version")
    columns = ["domain", "shard", "n_scored", "n_resumed", "n_reused", "device"]
    assert runs.select(columns).rows() == [("web", "a", 30, 0, 0, "cpu"), ("web", "a", 0, 0, 20, None)]
    assert runs["scores_version"].to_list() == [first.version, lake.version("scores")]
    assert runs["tokens_scored"].to_list() == [first.tokens_scored, 0]
    assert first.tokens_scored == sum(first.table["n_tokens"].to_pylist())
    assert set(runs["selector_fingerprint"]) == {SELECTOR.fingerprint}
    assert (runs["seconds"] > 0).all()


def test_the_scores_of_the_selector_before_stay_readable_by_version(root: Root, tmp_path: Path) -> None:
    lake = Lake(root)
    shard = indexed_shard(lake, tmp_path, "a", n_documents=20)
    before, rows = lake.version("scores"), rows_of(lake, shard)
    update(root, shard, tmp_path / "journal")
    assert not rows_of(lake, shard).equals(rows)
    old = pl.DataFrame(pl.from_arrow(lake.read("scores", version=before)))
    assert old.sort("doc_id").drop("scored_at", "shard").equals(rows)


@pytest.mark.parametrize("year", [1970, 2261])
def test_no_clock_decides_which_scores_are_current(tmp_path: Path, year: int) -> None:
    """A machine with a wrong clock wrote the old scores, staged some chunks and recorded a run."""
    root = Root.at(tmp_path / "root")
    lake = Lake(root)
    shard = indexed_shard(lake, tmp_path, "a", n_documents=30)
    when = pl.lit(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC)).cast(pl.Datetime("us", "UTC"))
    old = _frame(lake, "scores").with_columns(scored_at=when)
    lake.replace("scores", old.to_arrow().cast(TABLES["scores"]))
    staged = old.head(12).with_columns(n_tokens=pl.lit(7, pl.Int64), loss_base=pl.lit(3.0))
    StagedScores(root, SELECTOR.fingerprint, "web", "a").add(staged.to_arrow())
    result = update(root, shard, tmp_path / "journal")
    assert (result.n_reused, result.n_resumed, result.n_scored) == (0, 12, 18)
    rows = _frame(lake, "scores").sort("doc_id")
    assert set(rows["selector_fingerprint"]) == {SELECTOR.fingerprint}
    assert rows["n_tokens"].to_list()[:12] == [7] * 12
    assert update(root, shard, tmp_path / "journal").was_current


def test_what_a_run_killed_after_its_commit_left_staged_is_cleared_by_the_next(tmp_path: Path) -> None:
    root = Root.at(tmp_path / "root")
    shard = indexed_shard(Lake(root), tmp_path, "a", n_documents=10)
    result = update(root, shard, tmp_path / "journal")
    staging = StagedScores(root, SELECTOR.fingerprint, "web", "a")
    staging.add(result.table)
    assert update_partition_scores(Lake(root), shard, SELECTOR, load=_no_engine, storage_options={}).was_current
    assert len(staging.read()) == 0


def test_rows_in_another_order_are_current_too(tmp_path: Path) -> None:
    root = Root.at(tmp_path / "root")
    lake = Lake(root)
    shard = indexed_shard(lake, tmp_path, "a", n_documents=10)
    update(root, shard, tmp_path / "journal")
    lake.replace("scores", _frame(lake, "scores").reverse().to_arrow().cast(TABLES["scores"]))
    assert update_partition_scores(lake, shard, SELECTOR, load=_no_engine, storage_options={}).was_current


def test_a_shard_that_was_never_indexed_is_refused(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path / "root"))
    shard = Shard("web", "a", str(tmp_path / "none"), "jsonl", "text", "id")
    with pytest.raises(ValueError, match=r"web\.a is not indexed: materialize raw_corpus"):
        update_partition_scores(lake, shard, SELECTOR, load=_no_engine, storage_options={})


def test_an_interrupt_stages_what_was_scored_before_it(tmp_path: Path) -> None:
    root = Root.at(tmp_path / "root")
    lake = Lake(root)
    shard = indexed_shard(lake, tmp_path, "a", n_documents=40)
    seen = 0

    def interrupt(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise KeyboardInterrupt

    def engine() -> Engine:
        return replace(journalled_engine(tmp_path / "journal"), on_chunk=interrupt)

    with pytest.raises(KeyboardInterrupt):
        update_partition_scores(lake, shard, SELECTOR, load=engine, storage_options={})
    staged = len(StagedScores(root, SELECTOR.fingerprint, "web", "a").read())
    assert 0 < staged < 40
    assert update(root, shard, tmp_path / "journal").n_resumed == staged


def _long_shard(lake: Lake, directory: Path, *, n_documents: int) -> Shard:
    """A shard whose second document, and no other, has several windows."""
    texts = [" ".join(sentences()[:12]) if number == 1 else one for number, one in enumerate(sentences()[:n_documents])]
    path = directory / "long.jsonl"
    path.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    shard = Shard("web", "long", str(path), "jsonl", "text", "id")
    index_and_store(lake, landed(shard))
    return shard


def test_the_windows_of_long_documents_are_stored_and_rows_without_them_stay_current(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path / "root"))
    shard = _long_shard(lake, tmp_path, n_documents=4)
    table = update(lake.root, shard, tmp_path / "journal").table
    short, long, *others = table.sort_by("doc_id").to_pylist()
    assert [row["window_scores"] for row in (short, *others)] == [None] * 3
    assert len(long["window_scores"]) == -(-long["n_tokens"] // SELECTOR.max_tokens) > 1
    assert min(long["window_scores"]) <= long["score"] <= max(long["window_scores"])
    without = _frame(lake, "scores").drop("window_scores")
    lake.replace("scores", without.to_arrow())
    again = update_partition_scores(lake, shard, SELECTOR, load=_no_engine, storage_options={})
    assert (again.was_current, set(again.table["window_scores"].to_pylist())) == (True, {None})


def test_what_a_version_without_windows_stored_and_staged_is_kept(tmp_path: Path) -> None:
    """A table and a chunk of staged scores as version 0.1.0 wrote them, and a run that was killed."""
    lake = Lake(Root.at(tmp_path / "root"))
    shard = _long_shard(lake, tmp_path, n_documents=6)
    right = update(lake.root, shard, tmp_path / "journal").table.sort_by("doc_id")
    lake.root.delete("tables/scores")
    older = pa.schema([field for field in TABLES["scores"] if field.name != "window_scores"])
    first = right.slice(0, 2).drop_columns("window_scores")
    whole = first.append_column("domain", pa.repeat("web", 2)).append_column("shard", pa.repeat("long", 2))
    whole = whole.append_column("selector_fingerprint", pa.repeat(SELECTOR.fingerprint, 2))
    write_deltalake(
        lake.root.table_uri("scores"), whole.select(older.names).cast(older), partition_by=["domain", "shard"]
    )
    buffer = io.BytesIO()
    pq.write_table(right.slice(2, 3).select(first.column_names), buffer)
    name = hashlib.sha256(buffer.getvalue()).hexdigest()
    lake.root.write_bytes(f"staging/{SELECTOR.fingerprint}/web/long/{name}.parquet", buffer.getvalue())
    result = update(lake.root, shard, tmp_path / "journal")
    assert (result.n_reused, result.n_resumed, result.n_scored) == (2, 3, 1)
    losses = ["doc_id", "n_tokens", "loss_base", "loss_reference", "score"]
    assert result.table.sort_by("doc_id").select(losses).slice(0, 5).equals(right.select(losses).slice(0, 5))
    assert "window_scores" in pl.read_delta(lake.root.table_uri("scores")).columns


_WEB_A = Shard("web", "a", "/nowhere", "jsonl", "text", "id")
_WHERE = {"domain": "web", "shard": "a"}
_KEPT = st.tuples(st.sampled_from("tu"), st.sampled_from([SELECTOR.fingerprint, "another"]))


def _score_row(doc_id: str, text: str, mark: int) -> dict[str, Any]:
    return {
        "doc_id": doc_id,
        "text_sha256": text,
        "n_tokens": mark,
        "loss_base": 1.0,
        "loss_reference": 2.0,
        "score": 1.0,
        "scored_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    }


@settings(max_examples=25, deadline=None)
@given(
    texts=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("tu"), min_size=1),
    stored=st.dictionaries(st.sampled_from("abcdefg"), _KEPT),
    data=st.data(),
)
def test_what_is_stored_or_staged_for_the_same_text_is_kept_in_the_order_of_the_index(
    tmp_path_factory: pytest.TempPathFactory,
    texts: dict[str, str],
    stored: dict[str, tuple[str, str]],
    data: st.DataObject,
) -> None:
    """Every document has a score, in the table or staged, so that none is computed; marks say where each came from."""
    lake = Lake(Root.at(tmp_path_factory.mktemp("update")))
    order = data.draw(st.permutations(sorted(texts)))
    index = [
        {"doc_id": doc_id, "source_uri": "/nowhere", "source_row": row, "text_sha256": texts[doc_id], "n_bytes": 1}
        for row, doc_id in enumerate(order)
    ]
    documents = pa.Table.from_pylist([row | _WHERE for row in index], schema=TABLES["documents"])
    lake.replace("documents", documents, where=_WHERE)
    before = [
        _score_row(doc_id, text, 100 + number) | _WHERE | {"selector_fingerprint": fingerprint}
        for number, (doc_id, (text, fingerprint)) in enumerate(stored.items())
    ]
    lake.replace("scores", pa.Table.from_pylist(before, schema=TABLES["scores"]), where=_WHERE)
    staged = [_score_row(doc_id, text, 200 + number) for number, doc_id in enumerate("abcdef") for text in "tu"]
    StagedScores(lake.root, SELECTOR.fingerprint, "web", "a").add(pa.Table.from_pylist(staged, schema=STAGED_SCORES))

    current = {doc_id: (text, SELECTOR.fingerprint) for doc_id, text in texts.items()}.items() & stored.items()
    marks = {row["doc_id"]: row["n_tokens"] for row in before}
    kept = {doc_id: marks[doc_id] for doc_id, _ in current}
    expected = [(doc_id, texts[doc_id], kept.get(doc_id, 200 + "abcdef".index(doc_id))) for doc_id in order]
    result = update_partition_scores(lake, _WEB_A, SELECTOR, load=_no_engine, storage_options={})
    rows = result.table.select(["doc_id", "text_sha256", "n_tokens"])
    found = [tuple(row.values()) for row in rows.to_pylist()]
    assert result.was_current == (len(kept) == len(texts) == len(stored))
    assert found == expected or (result.was_current and sorted(found) == sorted(expected))
    assert (result.n_reused, result.n_resumed, result.n_scored) == (len(kept), len(texts) - len(kept), 0)
    assert result.n_tokens == sum(n_tokens for _, _, n_tokens in expected)
    committed = lake.read("scores", where=_WHERE)
    assert set(committed["selector_fingerprint"].to_pylist()) == {SELECTOR.fingerprint}
    assert sorted(committed["doc_id"].to_pylist()) == sorted(texts)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(st.text("ab0é"), st.sampled_from("tu")), unique_by=lambda row: row[0], max_size=9),
    data=st.data(),
)
def test_the_content_digest_is_sha256_of_selector_ids_and_texts_in_order_of_the_ids(
    rows: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Other values would be other data versions, and everything downstream would look changed."""
    table = pa.Table.from_pylist(
        [_score_row(*row, 1) for row in data.draw(st.permutations(rows))], schema=STAGED_SCORES
    )
    digest = hashlib.sha256(b"f")
    for doc_id, text in sorted(rows, key=lambda row: row[0].encode()):
        digest.update(f"\0{doc_id}\0{text}".encode())
    assert content_digest(table, selector_fingerprint="f") == digest.hexdigest()
