"""Which stretch of its domain's ranking a document is in, asked for many stretches and all domains in one scan.

The expressions made here are over the columns of `COUNTED` joined with `domain_places`: a binary search in nested CASE,
so that a document costs a few comparisons however many stretches there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["COARSE_BIN", "COARSE_SHIFT", "COUNTED", "Bound", "domain_places", "stretch_of"]

COARSE_SHIFT = 44  # 256 bins per power of two: some thousand bins for the scores of a domain
COARSE_BIN = f"ordinal >> {COARSE_SHIFT}"
# `ordinal`: the bits of the score as an integer that orders as the score does, 0 for both zeros.
COUNTED = """(
    SELECT *, CASE WHEN bits >= 0 THEN bits ELSE -9223372036854775808 - bits END AS ordinal
    FROM (SELECT {columns}, score::BIT::BIGINT AS bits FROM scores
          WHERE selector_fingerprint = $fingerprint AND isfinite(score) {among})
)"""


@dataclass(frozen=True)
class Bound:
    """The least document of a stretch, which ends there from above."""

    ordinal: int  # of its score
    doc_id: str | None  # None where every document with that score belongs to it

    @property
    def coarse_bin(self) -> int:
        """The number of the coarse bin that the score is in."""
        return self.ordinal >> COARSE_SHIFT

    def reached(self, parameter: str) -> str:
        """The condition in SQL that a document belongs to the stretch or one above; `parameter` names the doc_id."""
        if self.doc_id is None:
            return f"ordinal >= {self.ordinal}::BIGINT"
        return f"ordinal > {self.ordinal}::BIGINT OR (ordinal = {self.ordinal}::BIGINT AND doc_id >= ${parameter})"


def stretch_of(bounds: Sequence[Sequence[Bound]], values: Sequence[Sequence[str]]) -> tuple[str, dict[str, Any]]:
    """SQL for the value of the first bound of its domain that a document reaches, and the parameters in it.

    For each domain in its place: the bounds from the highest down, and an SQL expression for each and one more for what
    reaches none.
    """
    params: dict[str, Any] = {}
    of_domains: list[str] = []
    for place, (of_domain, values_of_domain) in enumerate(zip(bounds, values, strict=True)):
        names = [f"bound_{place}_{number}" for number in range(len(of_domain))]
        params |= {name: one.doc_id for name, one in zip(names, of_domain, strict=True) if one.doc_id is not None}
        reached = [bound.reached(name) for name, bound in zip(names, of_domain, strict=True)]
        of_domains.append(_searched(reached, values_of_domain))
    return _searched([f"place <= {place}" for place in range(len(of_domains) - 1)], of_domains), params


def domain_places(domains: Sequence[str]) -> tuple[str, dict[str, str]]:
    """A relation `places` with each domain's place among these, and its parameters."""
    rows = ", ".join(f"($domain_{place}::VARCHAR, {place})" for place in range(len(domains)))
    return f"(VALUES {rows}) AS places(domain, place)", {f"domain_{n}": name for n, name in enumerate(domains)}


def _searched(conditions: Sequence[str], values: Sequence[str]) -> str:
    """The value of the first condition that holds, where those after it hold as well; the last value if none does."""
    if not conditions:
        return values[0]
    middle = len(conditions) // 2
    upper = _searched(conditions[:middle], values[: middle + 1])
    lower = _searched(conditions[middle + 1 :], values[middle + 1 :])
    return f"CASE WHEN {conditions[middle]} THEN {upper} ELSE {lower} END"
