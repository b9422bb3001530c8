"""A lake that has scores, opened for questions about them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attninf_assets.corpus.printable import shortened
from attninf_assets.selector.stored import current_fingerprint
from attninf_assets.store.query import connect
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

if TYPE_CHECKING:
    import duckdb

__all__ = ["MEMORY", "Scored", "nearest", "open_scored", "require_lake"]

MEMORY = "1500MB"  # for DuckDB; what does not fit spills
_FEATURES = "document_features"


@dataclass(frozen=True)
class Scored:
    """Views of the tables, the selector whose scores count, and whether there is a view of the documents' features."""

    connection: duckdb.DuckDBPyConnection
    selector_fingerprint: str
    with_repetition: bool


@contextmanager
def open_scored(lake: Lake, *tables: str, domain: str | None = None) -> Iterator[Scored]:
    """The view `scores`, and views of other tables, of all domains or of one.

    Raises ValueError where the root is no lake, nothing is scored by the selector in use, or not that domain.
    """
    require_lake(lake)
    fingerprint = current_fingerprint(lake.root)
    if domain is not None and domain not in (known := {where["domain"] for where in lake.partitions("scores")}):
        raise ValueError(f"domain {shortened(domain)!r} has no scores; {nearest(domain, sorted(known))}")
    features = [_FEATURES] if _FEATURES in TABLES and lake.exists(_FEATURES) else []
    where = {} if domain is None else {"domain": domain}
    with connect(lake, "scores", *tables, *features, where=where, memory_limit=MEMORY) as connection:
        scored = connection.execute(
            "SELECT 1 FROM scores WHERE selector_fingerprint = $1 AND isfinite(score) LIMIT 1", [fingerprint]
        ).fetchall()
        if not scored:
            raise ValueError(
                f"{lake.root.uri}: no document{'' if domain is None else f' of {domain}'} has a score by the selector "
                f"in use, {fingerprint[:12]}: materialize attention_influence_scores first"
            )
        yield Scored(connection, fingerprint, bool(features))


def require_lake(lake: Lake) -> None:
    """Raise ValueError where no table lies under the root."""
    if not lake.root.exists("tables"):
        raise ValueError(f"{lake.root.uri}: no tables there; give --root or set ATTNINF_ROOT")


def nearest(name: str, known: Sequence[str]) -> str:
    """What may have been meant by an unknown name, to be said after it."""
    if near := difflib.get_close_matches(name, known, n=1):
        return f"did you mean {near[0]}?"
    return f"there are {', '.join(known[:20])}" if known else "there are none"
