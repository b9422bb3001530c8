"""Rows of `scores` as Hypothesis draws them, and the plain sort that what is found in them is held against."""

import math
from typing import Any

import duckdb
import pyarrow as pa
from hypothesis import strategies as st

from attninf_assets.store.schemas import TABLES
from benchmarks.rigs.tables_of_scores import scores_of

__all__ = ["Row", "connection_to", "drawn_rows", "ranking", "scored_row"]

Row = dict[str, Any]

_SPECIAL = st.sampled_from([None, math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1.7e308])
_TIED = st.sampled_from([0.1, 0.2, 0.1 + 2**-56, 0.3])
_SCORES = st.one_of(_SPECIAL, _TIED, _TIED, st.floats(allow_nan=False, allow_infinity=False))


def scored_row(
    domain: str, doc_id: str, score: float | None, *, n_tokens: int = 1, fingerprint: str = "f", **values: Any
) -> Row:
    """A row of the table `scores`."""
    changed = {"doc_id": doc_id, "score": score, "n_tokens": n_tokens, "selector_fingerprint": fingerprint, **values}
    return scores_of(domain, "a", 1).to_pylist()[0] | changed


@st.composite
def drawn_rows(draw: st.DrawFn, *, most_tokens: int = 9) -> list[Row]:
    """Rows of `scores` by two selectors, with ties, zeros of both signs, and scores that are none."""
    domains = st.sampled_from(["web", "web", "web", "code", "it's", "é"])
    losses = st.floats(0.1, 9, allow_nan=False)
    rows = draw(st.lists(st.tuples(domains, _SCORES, st.integers(1, most_tokens), losses), max_size=40))
    of_another = draw(st.sets(st.integers(0, 40), max_size=5))
    return [
        scored_row(
            domain,
            f"ü{number}",
            score,
            n_tokens=n_tokens,
            loss_base=loss,
            loss_reference=loss + 1,
            fingerprint="g" if number in of_another else "f",
        )
        for number, (domain, score, n_tokens, loss) in enumerate(rows)
    ]


def ranking(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each domain with a finite score by the selector `f`, best first, by sorting them in Python."""
    counted = [row for row in rows if row["selector_fingerprint"] == "f"]
    counted = [row for row in counted if row["score"] is not None and math.isfinite(row["score"])]
    counted.sort(key=lambda row: (row["score"], row["doc_id"]), reverse=True)
    return {
        domain: [row for row in counted if row["domain"] == domain] for domain in {row["domain"] for row in counted}
    }


def connection_to(**tables: list[Row]) -> duckdb.DuckDBPyConnection:
    """A DuckDB with these rows of our tables as views."""
    connection = duckdb.connect()
    for name, rows in tables.items():
        connection.register(name, pa.Table.from_pylist(rows, schema=TABLES[name]))
    return connection
