"""Which stretch of its domain's ranking a document is in, asked for many stretches and all domains in one scan.

The expressions made here are over the columns of `COUNTED` joined with `domain_places`: a binary search in nested CASE,
so that a document costs a few comparisons however many stretches there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["COUNTED", "Bound", "domain_places", "first_reached"]

# `ordinal`: the bits of the score as an integer that orders as the score does, 0 for both zeros.
COUNTED = """(
    SELECT *, CASE WHEN bits >= 0 THEN bits ELSE -9223372036854775808 - bits END AS ordinal
    FROM (SELECT {columns}, score::BIT::BIGINT AS bits FROM scores
          WHERE selector_fingerprint = $fingerprint AND isfinite(score) {among})
)"""


@dataclass(frozen=True)
class Bound:
    """The least document of a stretch. A document reaches it if it is of an earlier domain, or ranks as high."""

    place: int  # of its domain, as in `domain_places`
    ordinal: int | None  # of its score; None where the stretch ends with the domain
    doc_id: str | None = None  # None where every document with that score belongs to it

    def reached(self, parameter: str) -> tuple[str, dict[str, Any]]:
        """The condition in SQL, and its parameter under that name, if it needs one."""
        if self.ordinal is None:
            return f"place <= {self.place}", {}
        here = f"ordinal >= {self.ordinal}::BIGINT"
        if self.doc_id is not None:
            here = f"ordinal > {self.ordinal}::BIGINT OR (ordinal = {self.ordinal}::BIGINT AND doc_id >= ${parameter})"
        of_it = {} if self.doc_id is None else {parameter: self.doc_id}
        return f"place < {self.place} OR (place = {self.place} AND ({here}))", of_it


def first_reached(bounds: Sequence[Bound], values: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """SQL for the value of the first bound that a document reaches, and the parameters in it.

    `bounds` are in the order of domains, in each from the highest down; `values` are as many SQL expressions. Whoever
    reaches none has the last value.
    """
    conditions: list[str] = []
    params: dict[str, Any] = {}
    for number, bound in enumerate(bounds):
        condition, of_it = bound.reached(f"bound_{number}")
        conditions.append(condition)
        if number < len(bounds) - 1:  # the last is not asked for
            params |= of_it
    return _searched(conditions, values, 0, len(bounds) - 1), params


def domain_places(domains: Sequence[str]) -> tuple[str, dict[str, str]]:
    """A relation `places` with each domain's place among these, and its parameters."""
    rows = ", ".join(f"($domain_{place}::VARCHAR, {place})" for place in range(len(domains)))
    return f"(VALUES {rows}) AS places(domain, place)", {f"domain_{n}": name for n, name in enumerate(domains)}


def _searched(conditions: Sequence[str], values: Sequence[str], first: int, last: int) -> str:
    if first == last:
        return values[first]
    middle = (first + last) // 2
    upper, lower = _searched(conditions, values, first, middle), _searched(conditions, values, middle + 1, last)
    return f"CASE WHEN {conditions[middle]} THEN {upper} ELSE {lower} END"
