"""What decides which documents of one domain a selection keeps: cuts, bands, and what keys are made with; as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from attninf_assets.selection.band_weights import Band
from attninf_assets.selection.definitions import SelectionDefinition
from attninf_assets.selection.eligible import Eligible
from attninf_assets.selection.ordering import Fit, length_bin, ranking_key, uniform

if TYPE_CHECKING:
    import duckdb

__all__ = ["At", "Rule", "Rules"]

_DRAW = "draw"  # the purpose of the random numbers by which a band's documents are drawn


@dataclass(frozen=True)
class At:
    """A place in a ranking: the key and the doc_id of the last document above a cut, or of the first one below it."""

    key: float
    doc_id: str
    below: bool = False


@dataclass(frozen=True)
class Rule:
    """The rule of one domain."""

    cuts: Mapping[int, At]  # by length bin, or 0 for the domain; what has no cut keeps nothing
    fit: Fit | None = None
    edges: tuple[At, ...] = ()  # between one band and the next
    draws: tuple[At | None, ...] = ()  # by band: down to where, in random order, documents are taken once more

    def to_json(self) -> str:
        """In canonical JSON, which holds every float to the last bit."""
        told: dict[str, Any] = {"cuts": [[part, at.key, at.doc_id, at.below] for part, at in sorted(self.cuts.items())]}
        if self.fit is not None:
            told["fit"] = [list(self.fit.coefficients), self.fit.mean, self.fit.spread]
        if self.draws:
            told["edges"] = [[at.key, at.doc_id] for at in self.edges]
            told["draws"] = [None if at is None else [at.key, at.doc_id] for at in self.draws]
        return json.dumps(told)

    @classmethod
    def from_json(cls, text: str, *, domain: str) -> Rule:
        """What `to_json` wrote of that domain."""
        told = json.loads(text)
        fit = told.get("fit")
        return cls(
            cuts={part: At(*at) for part, *at in told["cuts"]},
            fit=None if fit is None else Fit(domain, tuple(fit[0]), fit[1], fit[2]),
            edges=tuple(At(*at) for at in told.get("edges", ())),
            draws=tuple(None if at is None else At(*at) for at in told.get("draws", ())),
        )


@dataclass(frozen=True)
class Rules:
    """A definition's documents as SQL relations: ranked, banded and selected by the rule of each domain.

    `put_into` makes the rules known to the connection that the relations are read over, until the next ones are.
    """

    eligible: Eligible
    by_domain: Mapping[str, Rule]

    @property
    def _definition(self) -> SelectionDefinition:
        return self.eligible.definition

    @property
    def _bands(self) -> Sequence[Band]:
        return self._definition.weighted_bands()

    def put_into(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Register what is fitted and cut as the relations `selection_fits` and `selection_cuts`."""
        fits = [
            {"domain": domain, "coefficients": rule.fit.coefficients, "mean": rule.fit.mean, "spread": rule.fit.spread}
            for domain, rule in self.by_domain.items()
            if rule.fit is not None
        ]
        numbers = pa.list_(pa.float64())
        kinds = {"domain": pa.string(), "coefficients": numbers, "mean": pa.float64(), "spread": pa.float64()}
        connection.register("selection_fits", pa.Table.from_pylist(fits, schema=pa.schema(kinds.items())))
        cuts = [
            {"domain": domain, "part": part, "cut_key": at.key, "cut_id": at.doc_id, "cut_below": at.below}
            | {f"edge_{end}_{n}": getattr(edge, end) for n, edge in enumerate(rule.edges) for end in ("key", "doc_id")}
            | {
                f"draw_{end}_{n}": getattr(draw, end)
                for n, draw in enumerate(rule.draws)
                if draw is not None
                for end in ("key", "doc_id")
            }
            for domain, rule in self.by_domain.items()
            for part, at in rule.cuts.items()
        ]
        kinds = {"domain": pa.string(), "part": pa.int32(), "cut_key": pa.float64(), "cut_id": pa.string()}
        kinds |= {"cut_below": pa.bool_()}
        for what, n_of in (("edge", len(self._bands) - 1), ("draw", len(self._bands))):
            for n in range(n_of):
                kinds |= {f"{what}_key_{n}": pa.float64(), f"{what}_doc_id_{n}": pa.string()}
        connection.register("selection_cuts", pa.Table.from_pylist(cuts, schema=pa.schema(kinds.items())))

    @property
    def ranked(self) -> str:
        """The eligible documents with `part` and `key`. Needs the fits, and no cuts."""
        fitted = any(rule.fit is not None for rule in self.by_domain.values())
        part = length_bin() if self._definition.order == "score_at_matched_length" else "0"
        return (
            f"(SELECT domain, shard, doc_id, score, n_tokens, {part}::INTEGER AS part, {ranking_key(self._definition)} "
            f"AS key FROM {self.eligible.rows} AS documents"
            + (" JOIN selection_fits AS fits USING (domain))" if fitted else ")")
        )

    @property
    def banded(self) -> str:
        """The ranked documents at or above their cut, with the number of their `band`, 0 without bands."""
        cases = [
            f"WHEN {_reaches('key', f'edge_key_{n}', f'edge_doc_id_{n}')} THEN {n}" for n in range(len(self._bands) - 1)
        ]
        band = f"CASE {' '.join(cases)} ELSE {len(cases)} END" if cases else "0"
        return (
            f"(SELECT *, {band} AS band FROM {self.ranked} AS ranked JOIN selection_cuts USING (domain, part) "
            f"WHERE isfinite(key) AND {_reaches('key', 'cut_key', 'cut_id')} "
            "AND NOT (cut_below AND key = cut_key AND doc_id = cut_id))"
        )

    @property
    def to_draw_from(self) -> str:
        """The documents of bands whose weight is no whole number, ranked in random order, band by band."""
        drawn = [str(n) for n, band in enumerate(self._bands) if band.weight.denominator != 1]
        return (
            f"(SELECT domain, band::INTEGER AS part, doc_id, n_tokens, {uniform(_DRAW, self._definition.seed)} AS key "
            f"FROM {self.banded} AS banded WHERE band IN ({', '.join(drawn)}))"
        )

    @property
    def selected(self) -> str:
        """The documents selected, with `key` and `copies`."""
        copies = "1"
        if self._bands:
            draw = uniform(_DRAW, self._definition.seed)
            cases = []
            for n, band in enumerate(self._bands):
                whole = math.floor(band.weight)
                more = f"coalesce({_reaches(draw, f'draw_key_{n}', f'draw_doc_id_{n}')}, false)::INTEGER"
                cases.append(f"WHEN {n} THEN {whole}" + ("" if band.weight == whole else f" + {more}"))
            copies = f"CASE band {' '.join(cases)} END"
        return f"(SELECT * FROM (SELECT *, ({copies})::BIGINT AS copies FROM {self.banded} AS banded) WHERE copies > 0)"


def _reaches(key: str, cut_key: str, cut_id: str) -> str:
    return f"({key} > {cut_key} OR ({key} = {cut_key} AND doc_id >= {cut_id}))"
