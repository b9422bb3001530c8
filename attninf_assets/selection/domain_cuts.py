"""The cuts of every domain by score alone, at many fractions of its documents and of its tokens."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from attninf_assets.selection.budgets import share_of
from attninf_assets.selection.cuts import Amount, Part, Ranking, Wanted, find_cuts

if TYPE_CHECKING:
    import duckdb

__all__ = ["DomainCut", "Target", "find_many_cuts", "ordinal_of"]

_ROWS = """(
    SELECT domain, 0 AS part, doc_id, n_tokens, score AS key FROM scores WHERE selector_fingerprint = $fingerprint
)"""


class Target(NamedTuple):
    """What a cut is looked for: a fraction of each domain, of its documents or of its tokens."""

    fraction: Fraction
    by_tokens: bool

    @classmethod
    def of(cls, fraction: float, *, by_tokens: bool) -> Target:
        """The fraction as the decimal it is written as: 0.07 of 100 documents is 7."""
        return cls(Fraction(str(fraction)), by_tokens)


@dataclass(frozen=True)
class DomainCut:
    """The last document selected in a domain, and how many documents and tokens are selected with it."""

    domain: str
    score: float
    doc_id: str
    n_documents: int  # with a finite score
    n_selected: int
    tokens_total: int
    tokens_selected: int


def find_many_cuts(
    connection: duckdb.DuckDBPyConnection, fingerprint: str, targets: Sequence[Target]
) -> dict[Target, list[DomainCut]]:
    """The cuts of all domains in the view `scores` for each target, by domain. Raises as `find_cuts` does."""
    asked: list[tuple[Target, Part]] = []

    def wanted(parts: Mapping[Part, Amount]) -> list[Wanted]:
        asked.extend((target, part) for target in targets for part in sorted(parts))
        return [
            Wanted(part, share_of(target.fraction, _total(parts[part], target)), target.by_tokens)
            for target, part in asked
        ]

    whole, cuts = find_cuts(connection, Ranking(_ROWS, {"fingerprint": fingerprint}), wanted)
    found: dict[Target, list[DomainCut]] = {target: [] for target in targets}
    for (target, part), cut in zip(asked, cuts, strict=True):
        found[target].append(
            DomainCut(
                domain=part.domain,
                score=cut.key,
                doc_id=cut.doc_id,
                n_documents=whole[part].documents,
                n_selected=cut.kept.documents,
                tokens_total=whole[part].tokens,
                tokens_selected=cut.kept.tokens,
            )
        )
    return found


def ordinal_of(score: float) -> int:
    """The score's bits as an integer that orders as scores do."""
    (bits,) = struct.unpack("<q", struct.pack("<d", score))
    return int(bits) if bits >= 0 else -(2**63) - int(bits)


def _total(whole: Amount, target: Target) -> int:
    return whole.tokens if target.by_tokens else whole.documents
