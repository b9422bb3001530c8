"""Selections compared with each other: as sets are, and as ranks are, in plain Python."""

import math
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.selection import comparison
from attninf_assets.selection.comparison import DomainComparison, compare
from attninf_assets.selection.definitions import PAPER
from attninf_assets.selection.references import SelectionAt, find_selection, selection_at
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

Chosen = dict[tuple[str, str], tuple[float, int]]  # score and tokens, by domain and doc_id

_CHOSEN: st.SearchStrategy[Chosen] = st.dictionaries(
    st.tuples(st.sampled_from(["web", "it's"]), st.sampled_from([f"d{number}" for number in range(12)])),
    st.tuples(st.sampled_from([0.1, 0.2, 0.3, -0.0, 0.0]) | st.floats(-5, 5), st.integers(1, 9)),
    min_size=1,
    max_size=20,
)


def _store(lake: Lake, chosen: Chosen, *, fingerprint: str = "f") -> SelectionAt:
    columns = TABLES["selected_subset"]
    rows = [
        {"doc_id": doc_id, "domain": domain, "shard": "a", "score": score, "n_tokens": n}
        | {"selector_fingerprint": fingerprint}
        | {"selection": PAPER, "order_key": score, "copies": 1}
        for (domain, doc_id), (score, n) in chosen.items()
    ]
    return selection_at(lake, PAPER, lake.replace("selected_subset", pa.Table.from_pylist(rows, schema=columns)))


def _ranks(values: list[float]) -> list[float]:
    """The mean of the places that a value and its ties have among the sorted values."""
    places = sorted(values)
    return [sum(n for n, one in enumerate(places) if one == value) / places.count(value) for value in values]


def _spearman(a: list[float], b: list[float]) -> float | None:
    """Pearson's correlation of the ranks."""
    a, b = _ranks(a), _ranks(b)
    n = len(a)
    if n < 2 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    mean_a, mean_b = sum(a) / n, sum(b) / n
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return covariance / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


def _in_plain_python(before: Chosen, after: Chosen, domain: str, found: DomainComparison) -> None:
    a, b = ({doc_id: one for (of, doc_id), one in side.items() if of == domain} for side in (before, after))
    common, either = sorted(a.keys() & b.keys()), a.keys() | b.keys()
    assert (found.documents_before, found.documents_after, found.documents_common) == (len(a), len(b), len(common))
    assert (found.tokens_before, found.tokens_after) == tuple(sum(n for _, n in side.values()) for side in (a, b))
    assert found.jaccard_documents == len(common) / len(either)
    tokens = [[side[doc_id][1] for side in (a, b) if doc_id in side] for doc_id in either]
    assert found.jaccard_tokens == sum(min(n) for n in tokens if len(n) == 2) / sum(max(n) for n in tokens)
    assert found.n_correlated == len(common)
    wanted = _spearman([a[one][0] for one in common], [b[one][0] for one in common])
    assert found.spearman == (None if wanted is None else pytest.approx(wanted, abs=1e-8))
    for moved, side, other in ((found.entered, b, a), (found.left, a, b)):
        order = sorted(side, key=lambda doc_id: (side[doc_id][0], doc_id), reverse=True)
        alone = [doc_id for doc_id in order if doc_id not in other]
        assert [one.doc_id for one in moved] == alone[:3]
        assert [(one.rank, one.selected) for one in moved] == [(order.index(x) + 1, len(side)) for x in alone[:3]]
        assert [(one.score, one.n_tokens) for one in moved] == [side[x] for x in alone[:3]]
    assert (found.n_entered, found.n_left) == (len(b.keys() - a.keys()), len(a.keys() - b.keys()))


def _swapped(one: DomainComparison) -> DomainComparison:
    return replace(
        one,
        documents_before=one.documents_after,
        documents_after=one.documents_before,
        tokens_before=one.tokens_after,
        tokens_after=one.tokens_before,
        n_entered=one.n_left,
        n_left=one.n_entered,
        entered=one.left,
        left=one.entered,
    )


def test_a_comparison_is_that_of_sets_and_ranks_and_the_other_way_round_it_is_swapped(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    @settings(max_examples=12, deadline=None)
    @given(before=_CHOSEN, after=_CHOSEN)
    def agrees(before: Chosen, after: Chosen) -> None:
        lake = Lake(Root.at(tmp_path_factory.mktemp("lake")))
        first, second = _store(lake, before), _store(lake, after)
        found = compare(first, second, top=3)
        assert [one.domain for one in found] == sorted({domain for domain, _ in [*before, *after]})
        for one in found:
            _in_plain_python(before, after, one.domain, one)
        assert compare(second, first, top=3) == [_swapped(one) for one in found]

    agrees()


def test_a_selection_compared_with_itself_is_the_same_and_nothing_moved(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    @settings(max_examples=8, deadline=None)
    @given(chosen=_CHOSEN)
    def agrees(chosen: Chosen) -> None:
        itself = _store(Lake(Root.at(tmp_path_factory.mktemp("lake"))), chosen)
        for one in compare(itself, itself):
            scores = {score + 0.0 for (domain, _), (score, _) in chosen.items() if domain == one.domain}
            assert (one.jaccard_documents, one.jaccard_tokens) == (1, 1)
            assert one.spearman == (1 if len(scores) > 1 else None)
            assert one.entered == one.left == () == (0,) * (one.n_entered + one.n_left)

    agrees()


def test_of_many_common_documents_some_are_correlated_and_their_number_is_said(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "_MOST_CORRELATED", 100)
    before: Chosen = {("web", f"d{number}"): (float(number), 1) for number in range(1_000)}
    after = {key: (-score, n) for key, (score, n) in before.items()}
    lake = Lake(root)
    (found,) = compare(_store(lake, before), _store(lake, after))
    assert found.spearman == -1
    assert 60 < found.n_correlated < 140
    assert found.documents_common == 1_000


def test_selections_are_found_by_name_version_selector_and_root(
    root: Root, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Lake(Root.at(tmp_path_factory.mktemp("other")))
    lake = Lake(root)
    first = _store(lake, {("web", "a"): (1.0, 1)}, fingerprint="ab1")
    second = _store(lake, {("web", "b"): (1.0, 1)}, fingerprint="ab2")
    third = _store(lake, {("web", "c"): (1.0, 1)}, fingerprint="cd")
    elsewhere = _store(other, {("web", "c"): (1.0, 1)}, fingerprint="ef")

    def found(text: str) -> SelectionAt:
        return find_selection(text, open_lake=lambda place: lake if place is None else Lake(Root.at(place)))

    assert found("paper") == third
    assert found(f"paper@v{first.version}") == first
    assert found("paper@fingerprint:ab") == second
    assert found("paper@fingerprint:ab1") == first
    there = found(f"{other.root.uri}::paper@v{elsewhere.version}")
    assert (there.lake.root.uri, there.version, there.selector_fingerprint) == (other.root.uri, elsewhere.version, "ef")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("paper@12", "names no selection: expected NAME, NAME@v12"),
        ("papr", "no selection 'papr'; did you mean paper?"),
        ("paper@v99", "there is no version 99 to be read"),
        (
            "paper@fingerprint:ab",
            "no version of paper that can still be read is by a selector ab…; there are those by f",
        ),
    ],
)
def test_a_selection_that_there_is_not_is_told_in_one_sentence(root: Root, text: str, wanted: str) -> None:
    lake = Lake(root)
    _store(lake, {("web", "a"): (1.0, 1)})
    with pytest.raises(ValueError, match=wanted) as error:
        find_selection(text, open_lake=lambda _: lake)
    assert "\n" not in str(error.value)


def test_a_root_without_tables_or_selection_is_told(root: Root) -> None:
    lake = Lake(root)
    with pytest.raises(ValueError, match="no tables there"):
        find_selection("paper", open_lake=lambda _: lake)
    root.write_bytes("tables/scores/x", b"")
    with pytest.raises(ValueError, match="nothing is selected yet"):
        find_selection("paper", open_lake=lambda _: lake)


def test_a_version_that_is_vacuumed_is_told(root: Root) -> None:
    lake = Lake(root)
    first = _store(lake, {("web", "a"): (1.0, 1)})
    (file,) = lake.files("selected_subset")
    _store(lake, {("web", "b"): (1.0, 1)})
    root.delete(file.removeprefix(f"{root.uri}/"))
    with pytest.raises(ValueError, match=f"version {first.version} is vacuumed away"):
        find_selection(f"paper@v{first.version}", open_lake=lambda _: lake)
