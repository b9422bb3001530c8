"""What is wrong with a partition's scores is counted, each fault by its own number."""

import math

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.document_score import NO_LOSS, attention_influence_score
from attninf_assets.scores.verification import (
    Mismatch,
    count_unscorable,
    count_wrong_losses,
    count_wrong_scores,
    fingerprints,
    mismatch,
)

_TEXT = pa.schema([("doc_id", pa.string()), ("text_sha256", pa.string())])


@pytest.mark.parametrize(
    ("scored", "expected"),
    [
        ("1t 2t", Mismatch(0, 0, 0)),
        ("1t", Mismatch(unscored=1, orphaned=0, repeated=0)),
        ("1t 2t 3t", Mismatch(unscored=0, orphaned=1, repeated=0)),
        ("1t 2u", Mismatch(unscored=1, orphaned=1, repeated=0)),
        ("1t 2t 2t", Mismatch(unscored=0, orphaned=0, repeated=1)),
        ("1t 2t 2u", Mismatch(unscored=0, orphaned=1, repeated=1)),
        ("", Mismatch(unscored=2, orphaned=0, repeated=0)),
    ],
)
def test_documents_without_their_score_and_scores_without_their_document_are_counted(
    scored: str, expected: Mismatch
) -> None:
    with duckdb.connect() as connection:
        for view, rows in (("documents", "1t 2t"), ("scores", scored)):
            table = [{"doc_id": row[0], "text_sha256": row[1]} for row in rows.split()]
            connection.register(view, pa.Table.from_pylist(table, schema=_TEXT))
        assert mismatch(connection) == expected
        assert mismatch(connection).none == (expected == Mismatch(0, 0, 0))


def test_only_losses_and_scores_that_cannot_be_are_wrong() -> None:
    right = [(0.0, 0.0, None), (1.0, 2.0, 1.0), (2.0, 1.0, -0.5)]
    wrong = [
        (math.nan, 1.0, None),
        (1.0, math.inf, 1.0),
        (-1.0, 1.0, 1.0),
        (1.0, -1e-9, 1.0),
        (1.0, 1.0, math.nan),
        (1.0, 1.0, -math.inf),
    ]
    columns = [pa.array(column, pa.float64()) for column in zip(*right, *wrong, strict=True)]
    names = ["loss_base", "loss_reference", "score"]
    with duckdb.connect() as connection:
        connection.register("scores", pa.table(columns, names))
        assert count_wrong_losses(connection) == len(wrong)
        assert count_unscorable(connection) == 2


_LOSSES = st.floats(0, 50) | st.sampled_from([0.0, NO_LOSS, math.nextafter(NO_LOSS, 0), math.nextafter(NO_LOSS, 1)])


@given(st.lists(st.tuples(_LOSSES, _LOSSES), min_size=1, max_size=20), st.data())
def test_a_score_that_is_not_that_of_its_losses_is_counted_and_no_other(
    losses: list[tuple[float, float]], data: st.DataObject
) -> None:
    scores = [attention_influence_score(*pair) for pair in losses]
    assert _n_wrong(losses, scores) == 0
    spoiled = data.draw(st.integers(0, len(scores) - 1))
    right = scores[spoiled]
    wrong = [0.5] if right is None else [None, right + 1e-6 * (1 + abs(right)), -right if abs(right) > 1e-6 else 1.0]
    scores[spoiled] = data.draw(st.sampled_from(wrong))
    assert _n_wrong(losses, scores) == 1


def _n_wrong(losses: list[tuple[float, float]], scores: list[float | None]) -> int:
    columns = [pa.array(column, pa.float64()) for column in (*zip(*losses, strict=True), scores)]
    with duckdb.connect() as connection:
        connection.register("scores", pa.table(columns, ["loss_base", "loss_reference", "score"]))
        return count_wrong_scores(connection)


def test_every_fingerprint_is_named_once() -> None:
    with duckdb.connect() as connection:
        connection.register("scores", pa.table({"selector_fingerprint": ["b", "a", "b"]}))
        assert fingerprints(connection) == ["a", "b"]
