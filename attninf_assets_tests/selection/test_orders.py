"""Selections in every order, against a slow one in plain Python; and what holds of them whatever the scores."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attninf_assets.selection import cuts
from attninf_assets.selection.definitions import Keep, SelectionDefinition
from attninf_assets.selection.thresholds import find_thresholds, selected
from attninf_assets.selection.verification import domains_not_as_counted, domains_not_at_their_fraction
from attninf_assets.store.schemas import TABLES
from benchmarks.rigs.tables_of_scores import scores_of

Row = dict[str, Any]
Chosen = dict[tuple[str, str], int]  # copies by domain and doc_id


def rows_of(numbers: dict[str, list[tuple[float, int]]]) -> list[Row]:
    """A scored document for each (score, n_tokens) of a domain."""
    (like,) = scores_of("web", "a", 1).to_pylist()
    return [
        like | {"domain": domain, "doc_id": f"{domain}-{i}", "score": score, "n_tokens": n_tokens}
        for domain, of_domain in numbers.items()
        for i, (score, n_tokens) in enumerate(of_domain)
    ]


def chosen(rows: list[Row], definition: SelectionDefinition) -> Chosen:
    """What is selected, found twice over: the checks must be content with it."""
    return found(rows, definition)[0]


def found(rows: list[Row], definition: SelectionDefinition) -> tuple[Chosen, list[Row]]:
    with duckdb.connect() as connection:
        connection.register("scores", pa.Table.from_pylist(rows, schema=TABLES["scores"]))
        thresholds = find_thresholds(connection, selector_fingerprint="f", definition=definition)
        connection.register("thresholds", thresholds)
        subset = selected(connection, selector_fingerprint="f").read_all()
        connection.register("selected_subset", subset)
        assert domains_not_at_their_fraction(connection) == []
        assert domains_not_as_counted(connection, selector_fingerprint="f") == []
    kept = subset.to_pylist()
    copies = {(row["domain"], row["doc_id"]): row["copies"] for row in kept}
    assert len(copies) == len(kept), "nothing twice"
    assert all(copies.values())
    for threshold in thresholds.to_pylist():
        of_domain = [row for row in kept if row["domain"] == threshold["domain"]]
        last = min(of_domain, key=lambda row: (row["order_key"], row["doc_id"]))
        assert (last["order_key"], last["doc_id"], last["score"]) == tuple(
            threshold[name] for name in ("threshold_key", "threshold_doc_id", "threshold_score")
        )
        assert (len(of_domain), sum(row["n_tokens"] for row in of_domain)) == (
            threshold["n_selected"],
            threshold["tokens_selected"],
        )
    return copies, thresholds.to_pylist()


# --- the slow way -----------------------------------------------------------------------------------------------------


def uniform(purpose: str, seed: int, doc_id: str) -> float:
    digest = hashlib.md5(f"{purpose}\0{seed}\0{doc_id}".encode()).digest()
    return (int.from_bytes(digest[8:], "little") // 4096 + 0.5) / 2**52


def slowly(rows: list[Row], definition: SelectionDefinition, passes: Callable[[Row], bool] = lambda _: True) -> Chosen:
    """The same selection, one document after another."""
    domains: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        fewest, most = definition.lengths().get(row["domain"], (0, None))
        if passes(row) and fewest <= row["n_tokens"] <= (most or math.inf) and not definition.excludes(row["domain"]):
            domains[row["domain"]].append(row)
    copies: Chosen = {}
    for domain, eligible in domains.items():
        ranked = sorted(eligible, key=lambda row: (key(row, eligible, definition), row["doc_id"]), reverse=True)
        kept = by_length(ranked, definition, domain) if matched(definition) else prefix(ranked, definition, domain)
        for row, weight in zip(ranked, weights(ranked, definition), strict=True):
            if row in kept:
                copies[domain, row["doc_id"]] = weight
        draw_more(copies, [row for row in ranked if row in kept], ranked, definition)
    return {document: n for document, n in copies.items() if n}


def matched(definition: SelectionDefinition) -> bool:
    return definition.order == "score_at_matched_length"


def key(row: Row, domain: list[Row], definition: SelectionDefinition) -> float:
    by = {"bottom": lambda row: -row["score"], "random": lambda row: uniform("random", definition.seed, row["doc_id"])}
    ranked_by = by.get(definition.order, lambda row: row["score"])
    if not definition.temperature:
        return float(ranked_by(row))
    values = np.array([ranked_by(one) for one in domain])
    noise = -math.log(-math.log(uniform("temperature", definition.seed, row["doc_id"])))
    return float((ranked_by(row) - values.mean()) / (values.std() or 1) + definition.temperature * noise)


def cost(rows: list[Row], *, by_tokens: bool) -> int:
    return sum(row["n_tokens"] for row in rows) if by_tokens else len(rows)


def target(rows: list[Row], definition: SelectionDefinition, domain: str) -> tuple[int, bool]:
    keep = definition.kept(domain)
    by_tokens = keep.budget == "tokens"
    share = Fraction(str(keep.fraction)) * cost(rows, by_tokens=by_tokens) if keep.number is None else keep.number
    return math.ceil(share), by_tokens


def reach(ranked: list[Row], wanted: int, *, by_tokens: bool) -> list[Row]:
    n = 0
    while cost(ranked[:n], by_tokens=by_tokens) < wanted:
        n += 1
    return ranked[:n]


def prefix(ranked: list[Row], definition: SelectionDefinition, domain: str) -> list[Row]:
    wanted, by_tokens = target(ranked, definition, domain)
    return reach(ranked, wanted, by_tokens=by_tokens)


def by_length(ranked: list[Row], definition: SelectionDefinition, domain: str) -> list[Row]:
    wanted, by_tokens = target(ranked, definition, domain)
    whole = cost(ranked, by_tokens=by_tokens)
    bins = sorted({length_bin(row) for row in ranked})
    kept: list[Row] = []
    before = 0
    for number in bins:
        here = [row for row in ranked if length_bin(row) == number]
        upto = cost([row for row in ranked if length_bin(row) <= number], by_tokens=by_tokens)
        share = math.floor(Fraction(wanted * upto, whole) + Fraction(1, 2))
        more = reach(here, share - before, by_tokens=by_tokens)
        without = cost(kept + more[:-1], by_tokens=by_tokens)
        kept += more if without < share else more[:-1]
        before = share
    return kept


def length_bin(row: Row) -> int:
    return math.floor(4 * math.log2(row["n_tokens"]))


def band_of(ranked: list[Row], definition: SelectionDefinition) -> dict[str, int]:
    """The band of every document, by the tokens down to it."""
    tokens = cost(ranked, by_tokens=True)
    bands = definition.weighted_bands()
    ends = [reach(ranked, math.ceil(band.end / 100 * tokens), by_tokens=True) for band in bands]
    return {row["doc_id"]: next(n for n, end in enumerate(ends) if row in end) for row in ranked}


def weights(ranked: list[Row], definition: SelectionDefinition) -> list[int]:
    if definition.bands is None:
        return [1] * len(ranked)
    bands, of = definition.weighted_bands(), band_of(ranked, definition)
    return [math.floor(bands[of[row["doc_id"]]].weight) for row in ranked]


def draw_more(copies: Chosen, kept: list[Row], ranked: list[Row], definition: SelectionDefinition) -> None:
    of = band_of(ranked, definition) if definition.bands else {}
    for number, band in enumerate(definition.weighted_bands()):
        here = [row for row in kept if of[row["doc_id"]] == number]
        here.sort(key=lambda row: (uniform("draw", definition.seed, row["doc_id"]), row["doc_id"]), reverse=True)
        more = reach(here, math.ceil(band.weight % 1 * cost(here, by_tokens=True)), by_tokens=True)
        for row in more:
            copies[row["domain"], row["doc_id"]] += 1


# --- what is the same, and what holds ---------------------------------------------------------------------------------

_SCORES = st.one_of(st.sampled_from([0.0, 0.25, 0.5, -1.0]), st.integers(-50, 50).map(lambda n: n / 16))
_DOMAIN = st.lists(st.tuples(_SCORES, st.integers(1, 300)), min_size=1, max_size=25)
_ROWS = st.fixed_dictionaries({"web": _DOMAIN, "it's": _DOMAIN}).map(rows_of)
_KEEP = st.one_of(
    st.builds(
        Keep, fraction=st.sampled_from([0.07, 0.2, 1 / 3, 0.5, 1.0]), of=st.sampled_from(["documents", "tokens"])
    ),
    st.builds(Keep, documents=st.just(1)),
    st.builds(Keep, tokens=st.just(1)),
)
_BANDS = st.sampled_from(
    [None, {"0-5": 0, "5-50": 1, "50-95": 2, "95-100": 0.5}, {"50-100": 0, "0-50": 0.3}, {"0-100": 2.5}]
)
_DEFINITIONS = st.one_of(
    st.builds(
        SelectionDefinition,
        keep=st.none() | _KEEP,
        order=st.sampled_from(["score", "bottom"]),
        temperature=st.sampled_from([0.0, 0.0, 1.0, 0.01]),
        bands=_BANDS,
        seed=st.integers(0, 3),
    ),
    st.builds(SelectionDefinition, keep=_KEEP, order=st.just("random"), bands=_BANDS, seed=st.integers(0, 3)),
    st.builds(
        SelectionDefinition,
        keep=_KEEP,
        order=st.just("score_at_matched_length"),
        temperature=st.sampled_from([0.0, 1.0]),
    ),
)


@pytest.mark.parametrize("few", [1, 200_000])
def test_every_order_selects_what_one_document_after_another_gives(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuts, "_FEW", few)

    @settings(max_examples=30, deadline=None)
    @given(rows=_ROWS, definition=_DEFINITIONS)
    def agrees(rows: list[Row], definition: SelectionDefinition) -> None:
        wanted = slowly(rows, definition)
        if {domain for domain, _ in wanted} != {"web", "it's"}:
            with pytest.raises(ValueError, match="bands: nothing of domain"):
                chosen(rows, definition)
            return
        assert chosen(rows, definition) == wanted

    agrees()


@settings(max_examples=12, deadline=None)
@given(rows=_ROWS, order=st.sampled_from(["score", "bottom", "random", "score_at_matched_length"]), data=st.data())
def test_budgets_are_exact_and_selections_of_larger_fractions_hold_those_of_smaller_ones(
    rows: list[Row], order: Any, data: st.DataObject
) -> None:
    less, more = sorted(data.draw(st.tuples(*[st.sampled_from([0.1, 0.25, 0.4, 0.5, 0.9, 1.0])] * 2)))
    small, large = (
        chosen(rows, SelectionDefinition(order=order, keep=Keep(fraction=one, of="documents"))) for one in (less, more)
    )
    for of, fraction in ((small, less), (large, more)):
        for domain in ("web", "it's"):
            n = sum(row["domain"] == domain for row in rows)
            assert sum(one == domain for one, _ in of) == math.ceil(Fraction(str(fraction)) * n)
    if order != "score_at_matched_length":  # whose bins are rounded each time anew
        assert small.keys() <= large.keys()


@settings(max_examples=12, deadline=None)
@given(rows=_ROWS, order=st.sampled_from(["score", "bottom", "score_at_matched_length"]), of=st.booleans())
def test_a_monotone_transform_of_the_scores_keeps_the_choice(rows: list[Row], order: Any, of: bool) -> None:
    definition = SelectionDefinition(order=order, keep=Keep(fraction=0.3, of="tokens" if of else "documents"))
    assert chosen([row | {"score": math.exp(row["score"]) - 3} for row in rows], definition) == chosen(rows, definition)


@settings(max_examples=15, deadline=None)
@given(rows=_ROWS, order=st.sampled_from(["score", "random"]), seeds=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_a_seed_reproduces_whatever_the_order_of_rows(rows: list[Row], order: Any, seeds: tuple[int, int]) -> None:
    one, other = (
        SelectionDefinition(order=order, seed=seed, temperature=2.0 if order == "score" else 0.0) for seed in seeds
    )
    kept = chosen(rows, one)
    assert found(rows[::-1], one) == found(rows, one)
    if one != other and len(rows) == 50:
        assert chosen(rows, other) != kept


@settings(max_examples=15, deadline=None)
@given(rows=_ROWS)
def test_as_the_temperature_goes_to_0_it_is_the_top(rows: list[Row]) -> None:
    for domain in ("web", "it's"):
        scores = [row["score"] for row in rows if row["domain"] == domain]
        assume(len(set(scores)) == len(scores))
    assert chosen(rows, SelectionDefinition(temperature=1e-9)) == chosen(rows, SelectionDefinition())


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 100_000), min_size=20, max_size=200), fraction=st.sampled_from([0.1, 0.3, 0.5, 0.9])
)
def test_at_matched_length_what_is_selected_is_as_long_as_the_domain(lengths: list[int], fraction: float) -> None:
    """At every bin's end, the share of the selection up to it is the domain's, to half a document; the score rises with
    the length, so that the plain order would take the longest."""
    rows = rows_of({"web": [(math.log(n), n) for n in lengths]})
    kept = chosen(rows, SelectionDefinition(order="score_at_matched_length", keep=Keep(fraction=fraction)))
    bins = np.array([length_bin(row) for row in rows])
    is_kept = np.array([("web", row["doc_id"]) in kept for row in rows])
    for end in bins:
        assert abs(is_kept[bins <= end].sum() - is_kept.sum() * (bins <= end).mean()) <= 0.5 + 1e-9


@settings(max_examples=6, deadline=None)
@given(rows=_ROWS, weights=st.lists(st.sampled_from([1, 2, 3.5, 0.25]), min_size=3, max_size=3))
def test_bands_partition_the_domain_and_weigh_its_tokens_exactly(rows: list[Row], weights: list[float]) -> None:
    bands = dict(zip(("0-10", "10-60", "60-100"), weights, strict=True))
    singly = {
        name: chosen(rows, SelectionDefinition(bands=dict.fromkeys(bands, 0.0) | {name: 1.0}, order="score"))
        for name in bands
        if _has_all(rows, name)
    }
    assume(len(singly) == 3)
    assert sum(map(len, singly.values())) == len(rows)
    assert set().union(*singly.values()) == {(row["domain"], row["doc_id"]) for row in rows}
    drawn = slowly(rows, SelectionDefinition(bands=bands))
    assume({domain for domain, _ in drawn} == {"web", "it's"})
    copies = chosen(rows, SelectionDefinition(bands=bands))
    for domain in ("web", "it's"):
        for name, weight in bands.items():
            here = [row for row in rows if (row["domain"], row["doc_id"]) in singly[name] and row["domain"] == domain]
            tokens = sum(row["n_tokens"] for row in here)
            taken = sum(row["n_tokens"] * copies.get((domain, row["doc_id"]), 0) for row in here)
            longest = max(row["n_tokens"] for row in here)
            assert weight * tokens <= taken < weight * tokens + longest


def _has_all(rows: list[Row], band: str) -> bool:
    """Whether no domain is without a document in that band."""
    weights = {"0-10": 0.0, "10-60": 0.0, "60-100": 0.0} | {band: 1.0}
    return {domain for domain, _ in slowly(rows, SelectionDefinition(bands=weights))} == {"web", "it's"}
