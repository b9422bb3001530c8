"""Bands of a domain's ranking, each with a weight."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Band", "parsed_bands", "valid_bands"]

_BAND = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*-\s*([0-9]+(?:\.[0-9]+)?)\s*")


@dataclass(frozen=True)
class Band:
    """A band of a domain's ranking: from which to which percentage of its tokens, from the top, and its weight."""

    begin: Fraction
    end: Fraction
    weight: Fraction


def valid_bands(written: dict[str, float] | None) -> dict[str, float] | None:
    """The bands as written. Raises ValueError where they are no division of 0 to 100, or all weigh nothing."""
    if written is None:
        return None
    ends: list[tuple[Fraction, Fraction]] = []
    for name, weight in written.items():
        match = _BAND.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r}: not a band; write percentages of the ranking from the top, as in '0-5'")
        if not 0 <= weight < math.inf:
            raise ValueError(f"{name!r}: weight {weight!r}: expected a finite number, at least 0")
        ends.append((Fraction(match[1]), Fraction(match[2])))
    reached = Fraction(0)
    for begin, end in sorted(ends):
        if begin != reached or end <= begin:
            raise ValueError(f"{float(begin):g}-{float(end):g}: bands are to follow on each other from 0 to 100")
        reached = end
    if reached != 100:
        raise ValueError(f"they end at {float(reached):g}, not at 100")
    if not any(written.values()):
        raise ValueError("every weight is 0: nothing would be selected")
    return written


def parsed_bands(written: Mapping[str, float]) -> list[Band]:
    """Valid bands, from the top."""
    matches = [(_BAND.fullmatch(name), weight) for name, weight in written.items()]
    bands = [Band(Fraction(m[1]), Fraction(m[2]), Fraction(str(weight))) for m, weight in matches if m is not None]
    return sorted(bands, key=lambda band: band.begin)
