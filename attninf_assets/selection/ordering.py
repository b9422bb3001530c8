"""The key by which a selection ranks documents, as a SQL expression over eligible documents.

Every key is a finite float64; higher ranks first, equal keys rank by doc_id. What is fitted to a domain (the residual's
coefficients, mean and spread under a temperature) comes from sums of integers, which no order of summation changes: the
same documents give the same keys, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from attninf_assets.selection.definitions import SelectionDefinition
from attninf_assets.store.schemas import TABLES

if TYPE_CHECKING:
    import duckdb

__all__ = ["CONFOUNDERS", "Fit", "fit", "length_bin", "ranking_key", "uniform"]

CONFOUNDERS = ("repetition", "repeated_lines", "zstd_ratio", "alphabetic")  # beside log n_tokens
_STEPS = 1 << 30  # into which a variable's range is divided before it is summed: products fit 63 bits
_BINS_PER_DOUBLING = 4


@dataclass(frozen=True)
class Fit:
    """What the key of one domain is made with."""

    domain: str
    coefficients: tuple[float, ...]  # of the regressors, the constant first; empty where there is no regression
    mean: float  # of the quantity ranked by, before noise
    spread: float  # its standard deviation; 1 where all are equal


def length_bin() -> str:
    """The number of a document's length bin: bins of equal log-length, four to a doubling of the tokens."""
    return f"floor({_BINS_PER_DOUBLING} * log2(n_tokens))::INTEGER"


def uniform(purpose: str, seed: int) -> str:
    """A number in (0, 1) that follows from purpose, seed and doc_id alone, the same on any machine: 52 bits of md5."""
    text = f"concat('{purpose}', chr(0), '{seed}', chr(0), doc_id)"
    return f"(((md5_number({text}) >> 76)::DOUBLE + 0.5) / {float(1 << 52)!r})"


def ranking_key(definition: SelectionDefinition) -> str:
    """The key, over eligible documents joined with a relation `fits` of domain, coefficients, mean and spread."""
    ranked_by = quantity(definition)
    if not definition.temperature:
        return ranked_by
    noise = f"-ln(-ln({uniform('temperature', definition.seed)}))"
    return f"(({ranked_by} - fits.mean) / fits.spread + '{definition.temperature!r}'::DOUBLE * ({noise}))"


def quantity(definition: SelectionDefinition) -> str:
    """What documents are ranked by before any noise."""
    match definition.order:
        case "score" | "score_at_matched_length":
            return "score"
        case "bottom":
            return "(-score)"
        case "random":
            return uniform("random", definition.seed)
        case "max_window_score":
            return "max_window_score"
        case "score_without_confounders":
            terms = [f"fits.coefficients[{n}] * {x}" for n, x in enumerate(regressors(), start=2)]
            return f"(score - (fits.coefficients[1] + {' + '.join(terms)}))"


def regressors() -> list[str]:
    """The variables that `score_without_confounders` takes out of the score, as SQL."""
    there = TABLES["document_features"].names if "document_features" in TABLES else []
    return ["ln(n_tokens)", *(name for name in CONFOUNDERS if name in there)]


def needs_fit(definition: SelectionDefinition) -> bool:
    """Whether the key depends on the other documents of the domain."""
    return bool(definition.temperature) or definition.order == "score_without_confounders"


def fit(connection: duckdb.DuckDBPyConnection, definition: SelectionDefinition, rows: str) -> list[Fit]:
    """What the keys of each domain are made with, from the eligible documents `rows`; nothing where keys need none.

    Least squares of the score on the regressors and a constant, over values rounded to 2^-30 of their range in the
    domain; a regressor that the ones before it determine gets the coefficient 0. Two scans.
    """
    if not needs_fit(definition):
        return []
    regress = definition.order == "score_without_confounders"
    variables = [*(regressors() if regress else []), "score" if regress else quantity(definition)]
    names = [f"v{n}" for n in range(len(variables))]
    values = ", ".join(f"({x})::DOUBLE AS {name}" for name, x in zip(names, variables, strict=True))
    bounds = ", ".join(f"min({name}) AS low_{name}, max({name}) AS high_{name}" for name in names)
    ranges = connection.sql(f"SELECT domain, {bounds} FROM (SELECT domain, {values} FROM {rows}) GROUP BY 1")
    ranges_table = ranges.to_arrow_table()
    connection.register("selection_ranges", ranges_table)
    steps = ", ".join(
        f"coalesce(round(({n} / 2 - low_{n} / 2) / nullif(high_{n} / 2 - low_{n} / 2, 0) * {_STEPS}), 0)::BIGINT AS {n}"
        for n in names
    )
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i:]]
    sums = [f"sum({name})" for name in names] + [f"sum({a} * {b})" for a, b in pairs]
    moments = connection.execute(
        f"""
        SELECT domain, count(*), {", ".join(sums)} FROM (
            SELECT domain, {steps} FROM (SELECT domain, {values} FROM {rows})
            JOIN selection_ranges USING (domain)) GROUP BY domain ORDER BY domain
        """
    ).fetchall()
    found = {row["domain"]: row for row in ranges_table.to_pylist()}
    return [
        _solved(domain, count, sums_, pairs, [(found[domain][f"low_{n}"], found[domain][f"high_{n}"]) for n in names])
        for domain, count, *sums_ in moments
    ]


def _solved(
    domain: str,
    count: int,
    sums: Sequence[int],
    pairs: Sequence[tuple[str, str]],
    ranges: Sequence[tuple[float, float]],
) -> Fit:
    """The normal equations, solved in exact fractions."""
    n = len(ranges)
    first = sums[:n]
    products = dict(zip(pairs, sums[n:], strict=True))

    def centred(i: int, j: int) -> Fraction:
        a, b = sorted((i, j))
        return Fraction(products[f"v{a}", f"v{b}"]) - Fraction(first[i] * first[j], count)

    y = n - 1
    rows = [[centred(i, j) for j in range(n)] for i in range(y)]  # the last column is the right-hand side
    slopes = _least_squares(rows)
    unit = [(Fraction(high) - Fraction(low)) / _STEPS for low, high in ranges]
    means = [Fraction(ranges[i][0]) + unit[i] * Fraction(first[i], count) for i in range(n)]
    in_units = [slope * unit[y] / unit[i] if unit[i] else Fraction(0) for i, slope in enumerate(slopes)]
    rest = centred(y, y) - sum((slope * centred(i, y) for i, slope in enumerate(slopes)), Fraction(0))
    spread = math.sqrt(rest / count) * float(unit[y]) if rest > 0 else 0.0
    constant = means[y] - sum((c * mean for c, mean in zip(in_units, means, strict=False)), Fraction(0))
    coefficients = (float(constant), *map(float, in_units)) if slopes else ()
    return Fit(domain, coefficients, 0.0 if slopes else float(means[y]), spread or 1.0)


def _least_squares(rows: list[list[Fraction]]) -> list[Fraction]:
    """The solution of a symmetric system by elimination; 0 for a variable that the ones before it determine."""
    n = len(rows)
    kept: list[int] = []
    for i in range(n):
        if rows[i][i] == 0:
            continue
        kept.append(i)
        for j in range(n):
            if j != i:
                factor = rows[j][i] / rows[i][i]
                rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [rows[i][n] / rows[i][i] if i in kept else Fraction(0) for i in range(n)]
