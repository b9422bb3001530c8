"""Which shards are current, stale or missing under a selector."""

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.scores.coverage import (
    PARTITION_STATES,
    SHARD_STATES,
    Coverage,
    WorkOnShards,
    coverage_by_domain,
    partition_states,
    require_coverage,
    shard_states,
    states_by_domain,
)

_TEXT = [("domain", pa.string()), ("shard", pa.string()), ("doc_id", pa.string()), ("text_sha256", pa.string())]
_DOCUMENTS = pa.schema(_TEXT)
_SCORES = pa.schema([*_TEXT, ("selector_fingerprint", pa.string())])

# Per (domain, shard): doc_id to text, and doc_id to (text, selector).
Indexed = Mapping[tuple[str, str], Mapping[str, str]]
Stored = Mapping[tuple[str, str], Mapping[str, tuple[str, str]]]


def _connection(indexed: Indexed, stored: Stored) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    documents = [(*key, doc_id, text) for key, texts in indexed.items() for doc_id, text in texts.items()]
    scores = [(*key, doc_id, *score) for key, rows in stored.items() for doc_id, score in rows.items()]
    connection.register("documents", _table(documents, _DOCUMENTS))
    connection.register("scores", _table(scores, _SCORES))
    return connection


def _table(rows: Sequence[tuple[str, ...]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)


def _state(texts: Mapping[str, str], scores: Mapping[str, tuple[str, str]]) -> str:
    if not scores:
        return "missing"
    return "current" if scores == {doc_id: (text, "ours") for doc_id, text in texts.items()} else "stale"


_SHARDS = st.tuples(st.sampled_from("xy"), st.sampled_from("ab"))
_INDEXED = st.dictionaries(_SHARDS, st.dictionaries(st.sampled_from("123"), st.sampled_from("tu"), min_size=1))
_SCORE = st.tuples(st.sampled_from("tu"), st.sampled_from(["ours", "ours", "theirs"]))
_STORED = st.dictionaries(_SHARDS, st.dictionaries(st.sampled_from("123"), _SCORE, min_size=1))


@settings(max_examples=150, deadline=None)
@given(indexed=_INDEXED, stored=_STORED, agree=st.sets(_SHARDS))
def test_states_are_what_comparing_every_document_says(
    indexed: Indexed, stored: Stored, agree: set[tuple[str, str]]
) -> None:
    stored = {
        **stored,
        **{key: {doc_id: (text, "ours") for doc_id, text in indexed[key].items()} for key in agree & indexed.keys()},
    }
    expected = []
    for key in sorted(indexed.keys() | stored.keys()):
        texts, scores = indexed.get(key, {}), stored.get(key, {})
        current = sum(scores.get(doc_id) == (text, "ours") for doc_id, text in texts.items())
        expected.append((*key, len(texts), current, _state(texts, scores)))
    with _connection(indexed, stored) as connection:
        states = partition_states(connection, selector_fingerprint="ours")
    assert states.schema.equals(PARTITION_STATES)
    assert [tuple(row.values()) for row in states.to_pylist()] == expected


def test_coverage_counts_current_scores_by_domain_and_refuses_too_few() -> None:
    indexed = {("x", "a"): {"1": "t", "2": "t"}, ("x", "b"): {"3": "t"}, ("y", "a"): {"1": "t"}}
    stored = {("x", "a"): {"1": ("t", "ours"), "2": ("t", "theirs")}, ("y", "a"): {"1": ("t", "ours")}}
    with _connection(indexed, stored) as connection:
        coverage = coverage_by_domain(connection, selector_fingerprint="ours")
    assert [(c.domain, c.n_documents, c.n_scored) for c in coverage] == [("x", 3, 1), ("y", 1, 1)]
    require_coverage(coverage, at_least=1 / 3)
    with pytest.raises(ValueError, match=r"current score in x \(1 of 3\)"):
        require_coverage(coverage, at_least=0.5)


def test_scores_of_documents_that_left_or_changed_are_refused_whatever_the_coverage() -> None:
    indexed = {("x", "a"): {"1": "t", "2": "changed"}}
    stored = {("x", "a"): {"1": ("t", "ours"), "2": ("t", "ours")}, ("gone", "a"): {"9": ("t", "ours")}}
    with _connection(indexed, stored) as connection:
        coverage = coverage_by_domain(connection, selector_fingerprint="ours")
    assert [(c.domain, c.n_documents, c.n_scored, c.n_orphaned) for c in coverage] == [
        ("gone", 0, 0, 1),
        ("x", 2, 1, 1),
    ]
    with pytest.raises(ValueError, match=r"no longer indexed in gone \(1\), x \(1\)"):
        require_coverage(coverage, at_least=0.0)


_KEYS = [f"{domain}.{shard}" for domain in ("a", "ab", "b") for shard in "12"]


_SOME_KEYS = st.sets(st.sampled_from(_KEYS))


@settings(deadline=None)
@given(
    stored=st.dictionaries(st.sampled_from(_KEYS), st.sampled_from(["current", "stale", "missing"])),
    registered=st.lists(st.sampled_from(_KEYS), unique=True),
    landed=_SOME_KEYS,
    work=st.builds(
        WorkOnShards,
        indexed=_SOME_KEYS,
        running=_SOME_KEYS,
        indexing_failed=_SOME_KEYS,
        scoring_failed=_SOME_KEYS,
        n_at_work=st.just(0),
    ),
)
def test_a_shards_state_follows_from_its_own_facts_alone(
    stored: dict[str, str], registered: list[str], landed: set[str], work: WorkOnShards
) -> None:
    rows = [dict(zip(("domain", "shard"), key.split("."), strict=True)) | {"state": stored[key]} for key in stored]
    table = pa.Table.from_pylist([row | {"n_documents": 1, "n_current": 0} for row in rows], schema=PARTITION_STATES)
    states = shard_states(table, registered=registered, landed=landed, work=work)
    assert states.keys() == stored.keys() | set(registered)
    for key, state in states.items():
        in_the_tables = stored.get(key, "current" if key in work.indexed else "not indexed")
        if key not in landed:
            assert state == "source gone"
        elif key in work.indexing_failed:
            assert state == "failed"
        elif in_the_tables != "current" and key in work.running:
            assert state == "running"
        elif in_the_tables in ("stale", "missing") and key in work.scoring_failed:
            assert state == "failed"
        else:
            assert state == in_the_tables
    assert set(states.values()) <= set(SHARD_STATES)
    counts = states_by_domain(states)
    assert list(counts) == sorted({key.split(".")[0] for key in states})
    for domain, by_state in counts.items():
        for state in SHARD_STATES:
            assert by_state[state] == sum(states[key] == state for key in states if key.startswith(f"{domain}."))


def test_shards_that_were_never_indexed_are_refused_by_name_where_all_is_asked_for() -> None:
    complete = [Coverage("x", 3, 3)]
    require_coverage(complete, at_least=1.0)
    require_coverage(complete, at_least=0.99, never_indexed=["x.b"])
    with pytest.raises(ValueError, match=r"shards that were never indexed: x\.b, y\.a: materialize their raw_corpus"):
        require_coverage(complete, at_least=1.0, never_indexed=["x.b", "y.a"])
    with pytest.raises(ValueError, match=r"x\.19 and 5 more: "):
        require_coverage(complete, at_least=1.0, never_indexed=[f"x.{n:02}" for n in range(25)])
