"""Definitions of named selections: what each keeps, of which documents, in which order."""

from __future__ import annotations

import hashlib
import json
import math
import re
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from attninf_assets.selection.band_weights import Band, parsed_bands, valid_bands

__all__ = [
    "EXCLUDE",
    "PAPER",
    "Band",
    "Budget",
    "DomainRule",
    "Keep",
    "Order",
    "SelectionDefinition",
]  # fmt: skip

PAPER = "paper"
EXCLUDE = "exclude"
_RULE = "rule"

Budget = Literal["documents", "tokens"]
Order = Literal["score", "score_at_matched_length", "score_without_confounders", "random", "bottom", "max_window_score"]
_NUMBER = re.compile(r"[0-9][0-9_]*(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _whole(written: object) -> object:
    """5e9 is a string for YAML, 5.0e9 a float; both are whole numbers."""
    if (isinstance(written, str) and _NUMBER.fullmatch(written)) or (
        isinstance(written, float) and math.isfinite(written)
    ):
        number = Fraction(written)
    else:
        return written
    return int(number) if number.denominator == 1 else written


def _fraction(value: float) -> float:
    if not 0 < value <= 1:
        raise ValueError("expected a number above 0, at most 1")
    return value


def _at_least_one(value: int) -> int:
    if value < 1:
        raise ValueError("expected at least 1")
    return value


def _not_negative(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError("expected a finite number, at least 0")
    return value


_Fraction = Annotated[float, AfterValidator(_fraction)]
_Count = Annotated[int, BeforeValidator(_whole), AfterValidator(_at_least_one)]


class Written(BaseModel):
    """Part of a selections file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Keep(Written):
    """How much of a domain is kept: a fraction of its documents or tokens, or a number of them."""

    fraction: _Fraction | None = None
    documents: _Count | None = None
    tokens: _Count | None = None
    of: Budget | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Keep:
        given = [name for name in ("fraction", "documents", "tokens") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other; give one")
        if not given and type(self) is Keep:
            raise ValueError("give one of fraction, documents and tokens")
        if self.of is not None and given not in ([], ["fraction"]):
            raise ValueError(f"`of` belongs to a fraction; `{given[0]}` is a number of {given[0]} already")
        return self

    @property
    def budget(self) -> Budget:
        """What is counted."""
        return "tokens" if self.tokens is not None or self.of == "tokens" else "documents"

    @property
    def number(self) -> int | None:
        """The documents or tokens asked for; None where it is a fraction."""
        return self.documents if self.tokens is None else self.tokens


class DomainRule(Keep):
    """What is otherwise in one domain: how much is kept, and how long a document may be."""

    min_tokens: _Count | None = None
    max_tokens: _Count | None = None

    @model_validator(mode="after")
    def _leaves_a_length(self) -> DomainRule:
        if self.max_tokens is not None and (self.min_tokens or 0) > self.max_tokens:
            raise ValueError(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        return self

    def kept(self, otherwise: Keep) -> Keep:
        """How much is kept, where the selection keeps that much `otherwise`."""
        if self.fraction is None and self.number is None:
            return otherwise if self.of is None else Keep(fraction=otherwise.fraction, of=self.of)
        of = self.of or (otherwise.of if self.fraction is not None else None)
        return Keep(fraction=self.fraction, documents=self.documents, tokens=self.tokens, of=of)


def _kind(written: object) -> str | None:
    if isinstance(written, str):
        return EXCLUDE
    return _RULE if isinstance(written, dict | DomainRule) else None


_Domain = Annotated[
    Annotated[Literal["exclude"], Tag(EXCLUDE)] | Annotated[DomainRule, Tag(_RULE)], Discriminator(_kind)
]


class SelectionDefinition(Written):
    """One named selection."""

    keep: Keep | None = None
    domains: dict[str, _Domain] = {}
    where: Annotated[str, Field(min_length=1)] | None = None
    order: Order = "score"
    temperature: Annotated[float, AfterValidator(_not_negative)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    bands: Annotated[dict[str, float] | None, AfterValidator(valid_bands)] = None

    @model_validator(mode="after")
    def _fits_together(self) -> SelectionDefinition:
        if self.temperature and self.order == "random":
            raise ValueError("temperature: a random order has none; leave it out")
        if self.bands is not None and self.order == "score_at_matched_length":
            raise ValueError("bands: they divide one ranking of the domain, which score_at_matched_length has not")
        for domain, rule in self.domains.items():
            if isinstance(rule, DomainRule) and rule.of and not rule.fraction and self.kept("").fraction is None:
                raise ValueError(f"domains.{domain}.of: `of` belongs to a fraction, and this selection keeps a number")
        return self

    def excludes(self, domain: str) -> bool:
        """Whether nothing of the domain is selected."""
        return self.domains.get(domain) == EXCLUDE

    def kept(self, domain: str) -> Keep:
        """How much of the domain is kept; unsaid, the paper's 20 % of the documents, or with bands all of them."""
        keep = self.keep or Keep(fraction=0.2 if self.bands is None else 1.0, of="documents")
        rule = self.domains.get(domain)
        return rule.kept(keep) if isinstance(rule, DomainRule) else keep

    def lengths(self) -> dict[str, tuple[int, int | None]]:
        """The fewest and most tokens of a document, by domain, where they are bounded."""
        rules = {domain: rule for domain, rule in self.domains.items() if isinstance(rule, DomainRule)}
        return {
            domain: (rule.min_tokens or 0, rule.max_tokens)
            for domain, rule in rules.items()
            if rule.min_tokens is not None or rule.max_tokens is not None
        }

    def weighted_bands(self) -> list[Band]:
        """The bands from the top; none where every document selected is taken once."""
        return parsed_bands(self.bands or {})

    def to_json(self) -> str:
        """The definition in canonical JSON: equal ones give equal text, however they were written."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> SelectionDefinition:
        """What `to_json` wrote."""
        return cls.model_validate_json(text)

    @property
    def digest(self) -> str:
        """sha256 of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
