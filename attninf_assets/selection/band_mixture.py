"""The bands as sources of a mixture, at a weight for each, in the files that OLMo-core and olmix read.

A weight says how often each document of a band is read: 0 leaves the band out, 2 repeats it. A band's share of the
mixture is its tokens times its weight. Both tools read tokenized files: a band's are expected in a folder of its own,
`<domain>/<band>/`, which a source names by a glob.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

import yaml

from attninf_assets.corpus.printable import shortened
from attninf_assets.selection.bands import BANDS

__all__ = ["FORMATS", "MixtureFormat", "band_weights", "mixture_file", "read_weights"]

MixtureFormat = Literal["olmo", "olmix"]
_RANGE = re.compile(r"(\d{1,3})-(\d{1,3})")
_STEP = 100 // len(BANDS)

Row = Mapping[str, Any]  # of the table `score_bands`


def band_weights(given: Mapping[str, float]) -> dict[str, float]:
    """The weight of each of the twenty bands, from weights of ranges such as `{"0-5": 0, "5-50": 1, "50-100": 2}`.

    Raises ValueError for what is no range of bands, a weight that is no number of 0 or more, and bands that have none
    or two.
    """
    weights: dict[str, float] = {}
    for name, weight in given.items():
        said = _RANGE.fullmatch(str(name))
        first, last = (int(said[1]), int(said[2])) if said else (0, 0)
        if not (first < last <= 100 and first % _STEP == last % _STEP == 0):
            raise ValueError(
                f"bands: {shortened(name)!r}: expected a range of percent from the best score down, in steps of "
                f"{_STEP}, such as 0-5 or 50-95"
            )
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise ValueError(f"bands: {name}: weight {shortened(repr(weight))}: expected a number, 0 or more")
        for band in BANDS[first // _STEP : last // _STEP]:
            if band in weights:
                raise ValueError(f"bands: {name}: band {band} has a weight already")
            weights[band] = float(weight)
    if missing := [band for band in BANDS if band not in weights]:
        raise ValueError(f"bands: band {missing[0]} has no weight; together the ranges must be 0-100")
    if not any(weights.values()):
        raise ValueError("bands: every weight is 0: nothing would be left")
    return weights


def read_weights(text: str) -> dict[str, float]:
    """The weights written as YAML or JSON, checked as `band_weights` does. Raises ValueError."""
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"bands: {shortened(text)!r} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict):
        raise ValueError(f"bands: {shortened(text)!r}: expected a mapping such as {{0-5: 0, 5-100: 1}}")
    return band_weights(given)


def mixture_file(rows: Sequence[Row], *, weights: Mapping[str, float], tokens_under: str, to: MixtureFormat) -> str:
    """The YAML of the mixture that `rows` of `score_bands` make at those weights.

    `tokens_under` is the folder or prefix below which the tokenized bands lie. Bands without documents and those of
    weight 0 are left out. Raises ValueError where nothing is left.
    """
    kept = [row for row in rows if row["n_tokens"] and weights[row["band"]]]
    if not kept:
        raise ValueError("no band with a weight above 0 holds a document")
    fingerprint = kept[0]["selector_fingerprint"]
    total = sum(_mass(row, weights) for row in kept)
    head = (
        f"# Bands of equal tokens by attention influence score, the best ones first, by selector {fingerprint}.\n"
        f"# {sum(row['n_tokens'] for row in kept):,} tokens, {total:,.0f} with repetitions. Counted by the selector's "
        "tokenizer.\n"
    )
    content = FORMATS[to](kept, weights, total, tokens_under.rstrip("/"))
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _mass(row: Row, weights: Mapping[str, float]) -> float:
    return row["n_tokens"] * weights[row["band"]]


def _paths(row: Row, under: str) -> list[str]:
    return [f"{under}/{row['domain']}/{row['band']}/*.npy"]


def _olmo_core(rows: Sequence[Row], weights: Mapping[str, float], total: float, under: str) -> dict[str, Any]:
    """OLMo-core's `SourceMixtureList`."""
    return {
        "sources": [
            {
                "source_name": f"{row['domain']}_{row['band']}",
                "target_ratio": _mass(row, weights) / total,
                "max_repetition_ratio": max(1.0, weights[row["band"]]),
                "paths": _paths(row, under),
            }
            for row in rows
        ]
    }


def _olmix(rows: Sequence[Row], weights: Mapping[str, float], total: float, under: str) -> dict[str, Any]:
    """The sections `data` and `mix` of an olmix experiment: each weight is a share of what it is a part of."""
    sources, mix = [], {}
    for domain, group in groupby(rows, key=lambda row: row["domain"]):
        bands = list(group)
        mass = sum(_mass(row, weights) for row in bands)
        sources.append({"name": domain, "quality": [{"name": r["band"], "paths": _paths(r, under)} for r in bands]})
        mix[domain] = {
            "weight": mass / total,
            **{
                row["band"]: {
                    "weight": _mass(row, weights) / mass,
                    "repetition_factor": max(1.0, weights[row["band"]]),
                }
                for row in bands
            },
        }
    return {"data": {"sources": sources}, "mix": mix}


FORMATS: Mapping[MixtureFormat, Callable[..., dict[str, Any]]] = {"olmo": _olmo_core, "olmix": _olmix}
