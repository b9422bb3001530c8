"""When a score is current: as comparing every score with every document says."""

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.scores.staleness import SAME_TEXT, are_of_the_same_texts, current_rows, made_by

texts_ = st.sampled_from(["t1", "t2", "t3"])
documents_ = st.dictionaries(st.sampled_from("abcdefg"), texts_, max_size=7)
scores_ = st.lists(st.tuples(st.sampled_from("abcdefgh"), texts_), max_size=9, unique_by=lambda score: score[0])


def _table(rows: list[tuple[str, str]]) -> pa.Table:
    return pa.table({name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(SAME_TEXT)})


@given(documents=documents_, scores=scores_)
def test_a_documents_score_is_current_if_it_is_of_its_id_and_its_text(
    documents: dict[str, str], scores: list[tuple[str, str]]
) -> None:
    index = list(documents.items())
    found = current_rows(_table(index), _table(scores))
    assert found.tolist() == [scores.index(document) if document in scores else -1 for document in index]


@given(documents=documents_, scores=scores_, same=st.booleans(), data=st.data())
def test_scores_are_of_the_same_texts_if_they_are_the_same_pairs_in_any_order_and_any_batches(
    documents: dict[str, str], scores: list[tuple[str, str]], same: bool, data: st.DataObject
) -> None:
    index = list(documents.items())
    others = data.draw(st.permutations(index)) if same else scores
    size = data.draw(st.integers(1, 4))
    batches = _table(list(others)).to_batches(max_chunksize=size)
    assert are_of_the_same_texts(batches, _table(index).to_batches()) == (sorted(others) == sorted(index))


def test_only_scores_by_the_selector_in_use_can_be_current() -> None:
    scores = pa.table({"selector_fingerprint": ["f", "g", "f"], "row": [0, 1, 2]})
    assert scores.filter(made_by("f"))["row"].to_pylist() == [0, 2]
    assert pc.sum(scores.filter(made_by("h"))["row"]).as_py() is None
