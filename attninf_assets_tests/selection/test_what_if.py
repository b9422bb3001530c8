"""What a selection would be: as if it were made, and sets were compared."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.selection import cuts
from attninf_assets.selection.definitions import PAPER, Budget, Keep, SelectionDefinition
from attninf_assets.selection.thresholds import find_thresholds, selected
from attninf_assets.selection.what_if import FRACTIONS, Overlap, what_if
from attninf_assets_tests.support.drawn_scores import Row, connection_to, drawn_rows, ranking, scored_row

_FRACTIONS = st.lists(st.sampled_from([*FRACTIONS, 0.07, 1.0, 1e-9, 1 / 3]), min_size=1, max_size=6)
BUDGETS: tuple[Budget, ...] = ("documents", "tokens")


@pytest.mark.parametrize("few", [1, 200_000])
def test_what_if_equals_materializing(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`few` documents are sorted without looking closer: a small number forces every finer pass."""
    monkeypatch.setattr(cuts, "_FEW", few)

    @settings(max_examples=8, deadline=None)
    @given(rows=drawn_rows(), fractions=_FRACTIONS, kept=st.sets(st.integers(0, 45)))
    def agrees(rows: list[Row], fractions: list[float], kept: set[int]) -> None:
        held = [row for number, row in enumerate(rows) if number in kept]
        held += [scored_row("web", "gone", 0.5), scored_row("another", "gone", 0.5)]
        with connection_to(scores=rows) as connection:
            connection.register("selected_subset", _subset(held))
            found = what_if(connection, selector_fingerprint="f", fractions=fractions)
            assert len(found) == len(ranking(rows)) * 2 * len(set(fractions))
            for row in found:
                materialized, ids = _materialized(connection, row.fraction, row.budget, row.domain)
                assert {
                    "threshold_score": row.threshold_score,
                    "threshold_doc_id": row.threshold_doc_id,
                    "n_documents": row.n_documents,
                    "n_selected": row.documents,
                    "tokens_total": row.tokens_total,
                    "tokens_selected": row.tokens,
                }.items() <= materialized.items()
                assert row.mean_tokens == row.tokens / row.documents
                assert row.mean_repetition is None
                theirs = {one["doc_id"] for one in held if one["domain"] == row.domain}
                common = len(ids & theirs)
                overlap = Overlap(PAPER, common, common / len(ids), common / len(ids | theirs))
                assert row.overlaps == ((overlap,) if theirs else ())

    agrees()


def _subset(rows: list[Row]) -> pa.Table:
    columns = ["selection", "doc_id", "domain", "shard", "score", "n_tokens", "selector_fingerprint"]
    return pa.Table.from_pylist([{"selection": PAPER, **row} for row in rows]).select(columns)


def _keeping(fraction: float, budget: Budget) -> SelectionDefinition:
    return SelectionDefinition(keep=Keep(fraction=fraction, of=budget))


def _materialized(connection: Any, fraction: float, budget: Budget, domain: str) -> tuple[Row, set[str]]:
    """The threshold of the domain and the ids of what is selected by it."""
    connection.register(
        "thresholds", find_thresholds(connection, selector_fingerprint="f", definition=_keeping(fraction, budget))
    )
    (row,) = [one for one in connection.sql("FROM thresholds").to_arrow_table().to_pylist() if one["domain"] == domain]
    subset = selected(connection, selector_fingerprint="f").read_all().to_pylist()
    return row, {one["doc_id"] for one in subset if one["domain"] == domain}


def test_the_repetition_is_the_mean_of_all_that_would_be_selected() -> None:
    rows = [scored_row("web", f"{number:02d}", float(number)) for number in range(10)]
    with connection_to(scores=rows, selected_subset=[]) as connection:
        connection.execute(
            "CREATE VIEW document_features AS SELECT domain, shard, doc_id, score AS repetition FROM scores"
        )
        found = what_if(connection, selector_fingerprint="f", fractions=[0.1, 0.3], with_repetition=True)
    assert [row.mean_repetition for row in found] == [9.0, 8.0] * 2


def test_nothing_scored_is_nothing_that_would_be() -> None:
    with connection_to(scores=[scored_row("web", "a", None)], selected_subset=[]) as connection:
        assert what_if(connection, selector_fingerprint="f") == []


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_a_fraction_outside_the_domain_is_refused_by_value(fraction: float) -> None:
    with (
        connection_to(scores=[], selected_subset=[]) as connection,
        pytest.raises(ValueError, match=f"fraction {fraction}"),
    ):
        what_if(connection, selector_fingerprint="f", fractions=[0.2, fraction])
