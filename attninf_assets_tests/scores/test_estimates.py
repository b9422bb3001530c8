"""What scoring would take, against counting every document."""

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.scores.cost import Estimate
from attninf_assets.scores.estimates import Rates, estimates_by_domain, largest_documents, measured_rates, together
from attninf_assets.scores.trial import Trial
from attninf_assets.store.root import Root

# A document: its domain and shard, its bytes, which are its tokens, too, and by which selector it is scored, if by any.
Document = tuple[str, str, int, str | None]
Run = tuple[str, int, float]  # selector, tokens, seconds
_SELECTORS = st.sampled_from(["ours", "theirs", None])
_DOCUMENTS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from("ab"), st.integers(1, 99), _SELECTORS), max_size=12
)
_RATES = st.dictionaries(st.sampled_from("xyz"), st.floats(0.5, 9))
_KEY = [(name, pa.string()) for name in ("domain", "shard", "doc_id", "text_sha256")]


def tables(documents: Sequence[Document], runs: Sequence[Run] = ()) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    keyed = [(domain, shard, str(n), str(n), size, by) for n, (domain, shard, size, by) in enumerate(documents)]
    of_selector = ("selector_fingerprint", pa.string())
    contents: list[tuple[str, list[tuple[str, pa.DataType]], Sequence[tuple[object, ...]]]] = [
        ("documents", [*_KEY, ("n_bytes", pa.int64())], [row[:5] for row in keyed]),
        ("scores", [*_KEY, ("n_tokens", pa.int64()), of_selector], [k for k in keyed if k[5]]),
        (
            "scoring_runs",
            [of_selector, ("tokens_scored", pa.int64()), ("seconds", pa.float64()),
             ("committed_at", pa.int64())],
            [(*run, number) for number, run in enumerate(runs)],
        ),
    ]  # fmt: skip
    for name, columns, rows in contents:
        schema = pa.schema(columns)
        connection.register(
            name, pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)
        )
    return connection


@settings(max_examples=60)
@given(
    documents=_DOCUMENTS, of_domain=_RATES, of_all=st.none() | st.floats(0.5, 9), speed=st.none() | st.floats(1, 1e6)
)
def test_the_estimates_are_what_counting_says_and_add_up(
    documents: list[Document], of_domain: Mapping[str, float], of_all: float | None, speed: float | None
) -> None:
    rates = Rates(of_all, speed, of_domain)
    with tables(documents) as connection:
        found = estimates_by_domain(connection, selector_fingerprint="ours", rates=rates, price_per_device_hour=3.0)
        largest = largest_documents(connection, selector_fingerprint="ours", at_most=3)
    left = [document for document in documents if document[3] != "ours"]
    assert [estimate.domain for estimate in found] == sorted({document[0] for document in left})
    for estimate in found:
        here = [document for document in left if document[0] == estimate.domain]
        n_bytes = sum(size for _, _, size, _ in here)
        assert (estimate.documents, estimate.n_bytes) == (len(here), n_bytes)
        assert estimate.partitions == len({shard for _, shard, _, _ in here})
        rate = of_domain.get(estimate.domain, of_all)
        tokens = None if rate is None else round(n_bytes / rate)
        hours = None if tokens is None or speed is None else pytest.approx(tokens / speed / 3600)
        assert (estimate.tokens, estimate.device_hours) == (tokens, hours)
        assert estimate.money == (None if hours is None else pytest.approx(3 * tokens / speed / 3600))  # type: ignore[operator]
    total = together(found)
    assert (total.documents, total.n_bytes) == (len(left), sum(size for _, _, size, _ in left))
    of_domains = [estimate.tokens for estimate in found]
    assert total.tokens == (None if None in of_domains else sum(tokens for tokens in of_domains if tokens is not None))
    sizes = sorted((size for _, _, size, _ in left), reverse=True)
    assert [document.n_bytes for document in largest] == sizes[:3]
    assert [document.share for document in largest] == pytest.approx([size / sum(sizes) for size in sizes[:3]])


def test_where_nothing_is_left_nothing_is_spent() -> None:
    assert together([]) == Estimate(0, 0, 0, 0, 0.0, 0.0)


def test_rates_are_the_selectors_own_before_its_trials_before_others(root: Root) -> None:
    ours, theirs = ("x", "a", 10, "ours"), ("y", "a", 10, "theirs")
    runs = [("theirs", 100, 10.0), ("theirs", 0, 5.0)]

    def rates(documents: list[Document], runs: list[Run]) -> Rates:
        with tables(documents, runs) as connection:
            return measured_rates(connection, root, selector_fingerprint="ours")

    assert rates([], []) == Rates(None, None, {}, "nothing yet")
    others = rates([theirs], runs)
    assert (others.tokens_per_second, others.of_domain) == (10.0, {"y": 1.0})
    assert others.measured_on == "the latest scoring of a shard by other selectors"
    Trial("ours", "cpu", "2", 7, 60, 2.0, {"x": 4.0, "y": 5.0}).publish(root)
    tried = rates([theirs], runs)
    assert (tried.tokens_per_second, tried.of_domain) == (30.0, {"x": 4.0, "y": 5.0})
    assert tried.measured_on.startswith("7 documents when the selector was made")
    own = rates([ours, theirs], [*runs, ("ours", 50, 1.0), ("ours", 70, 1.0)])
    assert (own.tokens_per_second, own.of_domain) == (60.0, {"x": 1.0, "y": 5.0})
    assert own.measured_on == "the latest 2 scorings of a shard by this selector"
    assert own.given(tokens_per_second=None, bytes_per_token=None) == own
    given_ = own.given(tokens_per_second=8.0, bytes_per_token=2.0)
    assert (given_.tokens_per_second, given_.bytes_per_token_in("x")) == (8.0, 2.0)
