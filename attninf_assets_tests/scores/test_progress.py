"""How far the scoring of a corpus is, against counting every document."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.scores.progress import ScoringProgress, earlier_selectors, scoring_progress
from attninf_assets.scores.staging import STAGED_SCORES, StagedScores, staged_shards
from attninf_assets.store.root import Root

# A document: its tokens, and by which selector it is scored, if by any. Bytes are four times the tokens.
Corpus = Mapping[tuple[str, str], list[tuple[int, str | None]]]
_DOCUMENT = st.tuples(st.integers(1, 50), st.sampled_from(["ours", "theirs", None]))
_SHARDS = st.tuples(st.sampled_from("xy"), st.sampled_from("ab"))
_RUNS = st.lists(st.tuples(st.sampled_from(["ours", "theirs"]), st.integers(0, 90), st.floats(0.5, 9)), max_size=5)
_RUN_COLUMNS = ("selector_fingerprint", "tokens_scored", "seconds", "committed_at")


def progress(corpus: Corpus, runs: list[tuple[str, int, float]], root: Root, *, at_work: int = 0) -> ScoringProgress:
    documents, scores = [], []
    for (domain, shard), rows in corpus.items():
        for number, (tokens, selector) in enumerate(rows):
            key = (domain, shard, str(number), "text")
            documents.append((*key, 4 * tokens))
            if selector is not None:
                scores.append((*key, tokens, selector))
    text = ("domain", "shard", "doc_id", "text_sha256")
    times = [(*run, datetime(2026, 1, 1, second=second, tzinfo=UTC)) for second, run in enumerate(runs)]
    with duckdb.connect() as connection:
        connection.register("documents", table(documents, {**dict.fromkeys(text, pa.string()), "n_bytes": pa.int64()}))
        of_scores = {**dict.fromkeys(text, pa.string()), "n_tokens": pa.int32(), "selector_fingerprint": pa.string()}
        connection.register("scores", table(scores, of_scores))
        types = (pa.string(), pa.int64(), pa.float64(), pa.timestamp("us", "UTC"))
        connection.register("scoring_runs", table(times, dict(zip(_RUN_COLUMNS, types, strict=True))))
        earlier = earlier_selectors(connection, selector_fingerprint="ours")
        theirs = {key for key, rows in corpus.items() if any(selector == "theirs" for _, selector in rows)}
        assert earlier == ({"theirs": len(theirs)} if theirs else {})
        unfinished = {f"{domain}.{shard}" for domain, shard in corpus}
        return scoring_progress(connection, root, selector_fingerprint="ours", unfinished=unfinished, n_at_work=at_work)


def table(rows: Sequence[tuple[object, ...]], types: Mapping[str, pa.DataType]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[]] * len(types)
    return pa.table(
        [pa.array(list(values), kind) for values, kind in zip(columns, types.values(), strict=True)], list(types)
    )


@settings(max_examples=60)
@given(corpus=st.dictionaries(_SHARDS, st.lists(_DOCUMENT, min_size=1, max_size=5)), runs=_RUNS)
def test_progress_is_what_counting_every_document_says(
    tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, runs: list[tuple[str, int, float]]
) -> None:
    found = progress(corpus, runs, Root.at(tmp_path_factory.getbasetemp() / "empty"), at_work=2)
    everything = [document for rows in corpus.values() for document in rows]
    done = [tokens for tokens, selector in everything if selector == "ours"]
    left = [tokens for tokens, selector in everything if selector != "ours"]
    assert (found.documents, found.documents_done, found.tokens_done) == (len(everything), len(done), sum(done))
    assert found.is_complete == (not left)
    by_selector = [(tokens, seconds) for selector, tokens, seconds in runs if selector == "ours" and tokens]
    measured = by_selector or [(tokens, seconds) for _, tokens, seconds in runs if tokens]
    rate = sum(t for t, _ in measured) / sum(s for _, s in measured) if measured else None
    assert found.tokens_per_second == (None if rate is None else pytest.approx(rate))
    assert found.device_hours == pytest.approx(sum(seconds for _, seconds in by_selector) / 3600)
    knows_bytes_per_token = any(selector is not None for _, selector in everything)
    if knows_bytes_per_token or not left:
        assert found.tokens_left == sum(left)
        if rate:
            assert found.seconds_left == pytest.approx(sum(left) / rate / 2)
    else:
        assert found.tokens_left is None
        assert found.seconds_left is None


def test_what_is_staged_of_unfinished_shards_is_done_and_no_longer_left(tmp_path: Path) -> None:
    root = Root.at(tmp_path)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [(str(number), "text", 10, 1.0, 2.0, 1.0, now, None) for number in range(2)]
    columns = zip(zip(*rows, strict=True), STAGED_SCORES, strict=True)
    chunk = pa.table([pa.array(values, field.type) for values, field in columns], schema=STAGED_SCORES)
    for shard in ("a", "finished"):
        staging = StagedScores(root, "ours", "x", shard)
        staging.add(chunk)
        staging.add(chunk[:1])  # by a second run at the same time
    StagedScores(root, "theirs", "x", "b").add(chunk)
    assert staged_shards(root, "ours") == ["x.a", "x.finished"]
    found = progress(
        {("x", "a"): [(10, "theirs")] * 4, ("x", "b"): [(10, "ours")]}, [("ours", 10, 1.0)], root, at_work=1
    )
    assert (found.documents_done, found.documents_staged, found.documents) == (3, 2, 5)
    assert (found.tokens_done, found.tokens_left, found.seconds_left) == (30, 20, 2.0)
    assert str(found) == "3 of 5 documents scored (60%), 30 tokens done, about 20 left"
