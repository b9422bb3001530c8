"""How far down each domain's ranking a selection goes: exact numbers of documents or tokens."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from attninf_assets.selection.cuts import Amount, Part, Wanted
from attninf_assets.selection.definitions import DomainRule, SelectionDefinition

__all__ = ["band_edges", "extra_draws", "share_of", "targets", "whole_domains"]


def whole_domains(parts: Mapping[Part, Amount]) -> dict[str, Amount]:
    """The documents and tokens of each domain, of all its parts together."""
    domains: dict[str, Amount] = {}
    for part, amount in parts.items():
        before = domains.get(part.domain, Amount(0, 0))
        domains[part.domain] = Amount(before.documents + amount.documents, before.tokens + amount.tokens)
    return domains


def share_of(fraction: Fraction | float, total: int) -> int:
    """The fraction of a total, rounded up; a float is taken as the decimal it is written as."""
    exact = fraction if isinstance(fraction, Fraction) else Fraction(str(fraction))
    return -(-exact.numerator * total // exact.denominator)


def targets(definition: SelectionDefinition, parts: Mapping[Part, Amount], *, field: str) -> list[Wanted]:
    """How far down each part is kept, parts that keep nothing left out.

    A domain in several parts, by length, is divided so that down to every part's end, counted from the shortest
    documents, the targets add up to the domain's target in proportion to what lies there, rounded to the nearest whole
    number. So what is kept is as long as what there is. Raises ValueError naming `field`, the selection's, for a number
    above what a domain has.
    """
    wanted: list[Wanted] = []
    for domain, whole in whole_domains(parts).items():
        keep = definition.kept(domain)
        by_tokens = keep.budget == "tokens"
        total = whole.tokens if by_tokens else whole.documents
        if keep.number is not None and keep.number > total:
            rule = definition.domains.get(domain)
            of_domain = isinstance(rule, DomainRule) and rule.number is not None
            where = f"domains.{domain}" if of_domain else "keep"
            raise ValueError(
                f"{field}.{where}.{keep.budget}: {keep.number:,}: domain {domain!r} has {total:,} {keep.budget} that "
                "may be selected"
            )
        target = share_of(keep.fraction or 0, total) if keep.number is None else keep.number
        reached = before = 0
        for part in sorted(part for part in parts if part.domain == domain):
            before += parts[part].tokens if by_tokens else parts[part].documents
            upto = (2 * target * before + total) // (2 * total)  # rounded to the nearest
            if upto > reached:
                wanted.append(Wanted(part, upto - reached, by_tokens))
            reached = upto
    return wanted


def band_edges(definition: SelectionDefinition, parts: Mapping[Part, Amount]) -> list[Wanted]:
    """Where each band of a domain's tokens ends and the next begins, from the top."""
    inner = definition.weighted_bands()[:-1]
    return [
        Wanted(part, share_of(band.end / 100, amount.tokens), by_tokens=True)
        for part, amount in parts.items()
        for band in inner
    ]


def extra_draws(definition: SelectionDefinition, bands: Mapping[Part, Amount]) -> list[Wanted]:
    """How many tokens of each band are taken once more than its weight's whole number: its fraction, rounded up."""
    weights = definition.weighted_bands()
    return [
        Wanted(part, share_of(weights[part.number].weight % 1, amount.tokens), by_tokens=True)
        for part, amount in bands.items()
    ]
