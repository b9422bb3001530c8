"""What is said of a document's place is what the selection did, whatever the scores."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.explaining.lookup import find_document
from attninf_assets.explaining.standing import rank_in_domain, verdicts
from attninf_assets.selection.definitions import Keep, SelectionDefinition
from attninf_assets.selection.thresholds import find_thresholds, selected
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import scores_of

_scores = st.lists(st.sampled_from([0.1, 0.2, 0.3, None]), min_size=1, max_size=12).filter(
    lambda scores: any(score is not None for score in scores)
)


def _keeping(fraction: float) -> SelectionDefinition:
    return SelectionDefinition(keep=Keep(fraction=fraction))


@settings(deadline=None, max_examples=8)
@given(scores=_scores, fraction=st.floats(0.05, 1))
def test_every_document_is_told_its_rank_and_what_decided(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float | None], fraction: float
) -> None:
    lake = Lake(Root.at(tmp_path_factory.mktemp("lake")))
    table = scores_of("web", "a", len(scores))
    field = TABLES["scores"].field("score")
    table = table.set_column(table.column_names.index("score"), field, pa.array(scores, pa.float64()))
    lake.replace("scores", table, where={"domain": "web", "shard": "a"})
    with duckdb.connect() as connection:
        connection.register("scores", table)
        thresholds = find_thresholds(connection, selector_fingerprint="f", definition=_keeping(fraction))
        connection.register("thresholds", thresholds)
        kept = selected(connection, selector_fingerprint="f").read_all()
    lake.replace("thresholds", thresholds)
    lake.replace("selected_subset", kept)
    ids = table["doc_id"].to_pylist()
    ranked = sorted(((s, i) for s, i in zip(scores, ids, strict=True) if s is not None), reverse=True)
    [cut] = thresholds.to_pylist()
    for score, doc_id in zip(scores, ids, strict=True):
        document = find_document(lake, "web", doc_id)
        [verdict] = verdicts(lake, document, selector_fingerprint="f")
        rank = rank_in_domain(lake, document, selector_fingerprint="f")
        assert verdict.is_in == (doc_id in kept["doc_id"].to_pylist())
        assert "but" not in verdict.reason
        if score is None:
            assert rank is None
            assert "null score is never selected" in verdict.reason
            continue
        assert rank is not None
        assert (rank.rank, rank.n_ranked) == (1 + ranked.index((score, doc_id)), len(ranked))
        assert rank.percentile == pytest.approx(100 * (len(ranked) - rank.rank + 0.5) / len(ranked))
        expected = {
            score > cut["threshold_score"]: "is above the threshold",
            score < cut["threshold_score"]: "is below the threshold",
            score == cut["threshold_score"] and doc_id > cut["threshold_doc_id"]: "comes after the threshold's",
            score == cut["threshold_score"] and doc_id < cut["threshold_doc_id"]: "comes before the threshold's",
            doc_id == cut["threshold_doc_id"]: "the last one that is kept",
        }
        assert expected[True] in verdict.reason


def test_a_selection_that_is_not_of_its_threshold_is_called_so(tmp_path: Path) -> None:
    lake = Lake(Root.at(tmp_path))
    table = scores_of("web", "a", 10)
    lake.replace("scores", table, where={"domain": "web", "shard": "a"})
    with duckdb.connect() as connection:
        connection.register("scores", table)
        thresholds = find_thresholds(connection, selector_fingerprint="f", definition=_keeping(0.5))
    lake.replace("thresholds", thresholds)
    document = find_document(lake, "web", thresholds["threshold_doc_id"][0].as_py())
    [verdict] = verdicts(lake, document, selector_fingerprint="f")
    assert not verdict.is_in
    assert "but selected_subset is not of this threshold: materialize it" in verdict.reason
    [verdict] = verdicts(lake, document, selector_fingerprint="another")
    assert verdict.reason == "its score is by another selector than the one in use"
