"""find_thresholds and selected, against a plain sort."""

import math
from fractions import Fraction
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.selection import cuts
from attninf_assets.selection.definitions import Budget, Keep, SelectionDefinition
from attninf_assets.selection.thresholds import find_thresholds, selected
from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from benchmarks.rigs.tables_of_scores import scores_of

Row = dict[str, Any]


def _row(domain: str, doc_id: str, score: float | None, *, n_tokens: int = 1, fingerprint: str = "f") -> Row:
    changed = {"doc_id": doc_id, "score": score, "n_tokens": n_tokens, "selector_fingerprint": fingerprint}
    return scores_of(domain, "a", 1).to_pylist()[0] | changed


def _keeping(fraction: float, budget: Budget = "documents") -> SelectionDefinition:
    return SelectionDefinition(keep=Keep(fraction=fraction, of=budget))


def _connection(rows: list[Row]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.register("scores", pa.Table.from_pylist(rows, schema=TABLES["scores"]))
    return connection


def _by_plain_sort(rows: list[Row], fraction: float, budget: Budget) -> tuple[list[Row], list[Row]]:
    """The thresholds, and the selected rows, by sorting each domain in Python."""
    thresholds: list[Row] = []
    kept: list[Row] = []
    for domain in sorted({row["domain"] for row in rows}):
        scored = [row for row in rows if row["domain"] == domain and row["selector_fingerprint"] == "f"]
        scored = [row for row in scored if row["score"] is not None and math.isfinite(row["score"])]
        if not scored:
            continue
        scored.sort(key=lambda row: (row["score"], row["doc_id"]), reverse=True)
        costs = [row["n_tokens"] if budget == "tokens" else 1 for row in scored]
        n = 0
        while sum(costs[:n]) < Fraction(str(fraction)) * sum(costs):
            n += 1
        kept += scored[:n]
        thresholds.append(
            {
                "selection": "paper",
                "domain": domain,
                "fraction": fraction,
                "budget": budget,
                "threshold_score": scored[n - 1]["score"],
                "threshold_doc_id": scored[n - 1]["doc_id"],
                "n_documents": len(scored),
                "n_selected": n,
                "tokens_total": sum(row["n_tokens"] for row in scored),
                "tokens_selected": sum(row["n_tokens"] for row in scored[:n]),
                "selector_fingerprint": "f",
                "threshold_key": scored[n - 1]["score"],
                "n_eligible": len(scored),
                "tokens_eligible": sum(row["n_tokens"] for row in scored),
                "wanted": None,
            }
        )
    kept = [row | {"selection": "paper", "order_key": row["score"], "copies": 1} for row in kept]
    columns = TABLES["selected_subset"].names
    return thresholds, [{column: row[column] for column in columns} for row in kept]


_SPECIAL = st.sampled_from([None, math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, -5e-324, 1.7e308, -1.7e308])
_TIED = st.sampled_from([0.1, 0.2, 0.1 + 2**-56, 0.3])
_SCORES = st.one_of(_SPECIAL, _TIED, st.floats(allow_nan=False, allow_infinity=False))
_FRACTIONS = st.one_of(
    st.sampled_from([0.07, 0.2, 0.5, 1.0, 1 / 3, 1e-9]), st.floats(0, 1, exclude_min=True, allow_subnormal=False)
)


@st.composite
def _tables(draw: st.DrawFn) -> list[Row]:
    domains = st.sampled_from(["web", "web", "web", "code", "it's", "é"])
    rows = draw(st.lists(st.tuples(domains, _SCORES, st.integers(1, 9), st.sampled_from("fffg")), max_size=40))
    prefix = draw(st.sampled_from(["", "doc-", "ü"]))
    return [
        _row(domain, f"{prefix}{i}", score, n_tokens=n_tokens, fingerprint=fingerprint)
        for i, (domain, score, n_tokens, fingerprint) in enumerate(rows)
    ]


@pytest.mark.parametrize("few", [1, 3, 200_000])
@pytest.mark.parametrize("budget", ["documents", "tokens"])
def test_the_cut_is_the_one_a_plain_sort_gives(few: int, budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    """`few` is how many documents are sorted without looking closer: small ones force every finer pass."""
    monkeypatch.setattr(cuts, "_FEW", few)

    @settings(max_examples=40, deadline=None)
    @given(rows=_tables(), fraction=_FRACTIONS)
    def agrees(rows: list[Row], fraction: float) -> None:
        thresholds, kept = _by_plain_sort(rows, fraction, budget)
        with _connection(rows) as connection:
            if not thresholds:
                with pytest.raises(ValueError, match="nothing is scored by selector f"):
                    find_thresholds(connection, selector_fingerprint="f", definition=_keeping(fraction, budget))
                return
            found = find_thresholds(connection, selector_fingerprint="f", definition=_keeping(fraction, budget))
            assert found.schema.equals(TABLES["thresholds"])
            assert [{name: row[name] for name in thresholds[0]} for row in found.to_pylist()] == thresholds
            connection.register("thresholds", found)
            subset = selected(connection, selector_fingerprint="f")
            assert subset.schema.equals(TABLES["selected_subset"])
            by_id = [sorted(rows, key=lambda row: row["doc_id"]) for rows in (subset.read_all().to_pylist(), kept)]
            assert by_id[0] == by_id[1]

    agrees()


_CHARACTERS = st.sampled_from(["a", "b", "\0", "\x7f", "é", "\uffff", "\U0001f600"])
_IDS = st.builds(
    lambda prefix, ends: [prefix + end for end in ends],
    st.sampled_from(["", "doc-", "é" * 300, "\0"]),
    st.lists(st.text(_CHARACTERS, max_size=5), min_size=1, max_size=40, unique=True),
)


@pytest.mark.parametrize("few", [1, 3])
@pytest.mark.parametrize("budget", ["documents", "tokens"])
def test_ties_are_cut_by_doc_id_whatever_ids_look_like_and_only_few_are_sorted(
    few: int, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "_FEW", few)
    finish = cuts._finish

    def finish_few(connection: Any, params: Any, questions: Any) -> Any:
        assert all(question.inside <= few for question in questions.values())
        return finish(connection, params, questions)

    monkeypatch.setattr(cuts, "_finish", finish_few)

    @settings(max_examples=60, deadline=None)
    @given(ids=st.tuples(_IDS, _IDS), fraction=_FRACTIONS, data=st.data())
    def agrees(ids: tuple[list[str], list[str]], fraction: float, data: st.DataObject) -> None:
        scores, tokens = st.sampled_from([0.5, 0.5, 0.5, -2.0]), st.integers(1, 9)
        rows = [
            _row(domain, doc_id, data.draw(scores), n_tokens=data.draw(tokens))
            for domain, of_domain in zip(("web", "it's"), ids, strict=True)
            for doc_id in of_domain
        ]
        with _connection(rows) as connection:
            found = find_thresholds(connection, selector_fingerprint="f", definition=_keeping(fraction, budget))
        thresholds = _by_plain_sort(rows, fraction, budget)[0]
        assert [{name: row[name] for name in thresholds[0]} for row in found.to_pylist()] == thresholds

    agrees()


@pytest.mark.parametrize("copies", [2, 5])
@pytest.mark.parametrize("few", [1, 200_000])
def test_many_copies_of_one_document_at_the_cut_are_refused_however_few_are_sorted(
    few: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "_FEW", few)
    rows = [_row("web", "a", 2.0), *[_row("web", "b", 1.0)] * copies, *(_row("web", f"c{i}", 0.0) for i in range(7))]
    with _connection(rows) as connection, pytest.raises(ValueError, match="'b' of domain 'web' occurs more than once"):
        find_thresholds(connection, selector_fingerprint="f", definition=_keeping(2 / len(rows)))


@pytest.mark.parametrize(("fraction", "n"), [(0.1, 20_000), (0.5, 100_000), (0.9, 180_000)])
@pytest.mark.parametrize("few", [1_000, 1_000_000])
def test_a_mass_of_ties_is_cut_by_doc_id_wherever_the_cut_lies(
    fraction: float, n: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "_FEW", few)
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE VIEW scores AS SELECT printf('%06d', range) AS doc_id, domain, 's' AS shard, "
            "1::BIGINT AS n_tokens, 0.25::DOUBLE AS score, 'f' AS selector_fingerprint "
            "FROM range(200_000), (VALUES ('a'), ('b')) AS t(domain)"
        )
        found = find_thresholds(connection, selector_fingerprint="f", definition=_keeping(fraction))
    assert found["threshold_doc_id"].to_pylist() == [f"{200_000 - n:06d}"] * 2
    assert found["n_selected"].to_pylist() == [n] * 2


@pytest.mark.parametrize(("fraction", "n"), [(0.07, 7), (0.07000001, 8), (0.29, 29), (0.57, 57), (1.0, 100), (1, 100)])
def test_the_number_selected_is_exact_in_decimals(fraction: float, n: int) -> None:
    with _connection([_row("web", f"{i:03d}", float(i)) for i in range(100)]) as connection:
        found = find_thresholds(connection, selector_fingerprint="f", definition=_keeping(fraction))
    assert found["n_selected"].to_pylist() == [n]


def test_a_scored_document_without_tokens_is_refused() -> None:
    with _connection([_row("web", "a", 1.0, n_tokens=0)]) as connection, pytest.raises(ValueError, match="'web'"):
        find_thresholds(connection, selector_fingerprint="f", definition=_keeping(0.5, "tokens"))


def test_a_document_that_is_there_twice_at_the_cut_is_refused() -> None:
    rows = [_row("web", "a", 2.0), _row("web", "b", 1.0), _row("web", "b", 1.0), _row("web", "c", 0.0)]
    with _connection(rows) as connection, pytest.raises(ValueError, match="'b' of domain 'web' occurs more than once"):
        find_thresholds(connection, selector_fingerprint="f", definition=_keeping(0.5))


def test_thresholds_that_name_a_domain_twice_are_refused() -> None:
    with _connection([_row("web", "a", 1.0)]) as connection:
        found = find_thresholds(connection, selector_fingerprint="f", definition=_keeping(0.5))
        connection.register("thresholds", pa.concat_tables([found, found]))
        with pytest.raises(ValueError, match="'web' has several"):
            selected(connection, selector_fingerprint="f")


def test_the_subset_selected_from_stored_tables_can_be_stored(root: Root) -> None:
    lake = Lake(root)
    for domain, n in (("web", 10), ("code", 1)):
        lake.replace("scores", scores_of(domain, "1", n), where={"domain": domain, "shard": "1"})
    with connect(lake, "scores") as connection:
        found = find_thresholds(connection, selector_fingerprint="f", definition=SelectionDefinition())
    lake.replace("thresholds", found)
    with connect(lake, "scores", "thresholds") as connection:
        lake.replace("selected_subset", selected(connection, selector_fingerprint="f"))
    kept = lake.read("selected_subset", columns=["doc_id", "shard"]).to_pylist()
    assert sorted((row["doc_id"], row["shard"]) for row in kept) == [
        ("code-1-0", "1"),
        ("web-1-8", "1"),
        ("web-1-9", "1"),
    ]
