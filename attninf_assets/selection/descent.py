"""The way down one domain, document by document or many at a time, to where its target is reached."""

from dataclasses import dataclass
from itertools import takewhile

import numpy as np

__all__ = ["Cut", "Descent"]

_BINS_BITS = 12  # a pass by score splits what is in question into some 4,096


@dataclass(frozen=True)
class Cut:
    """The last document selected in a domain, and what is selected with it."""

    domain: str
    score: float
    doc_id: str
    n_documents: int  # with a finite score
    n_selected: int
    tokens_total: int
    tokens_selected: int


@dataclass
class Descent:
    """The way down a domain, highest score first, to where its target is reached."""

    n_documents: int
    tokens_total: int
    by_tokens: bool
    target: int  # documents or tokens
    inside: int  # documents in question: those of the bin that holds the cut
    low: int  # lowest and highest ordinal in question
    high: int
    first_id: str | None = None  # least and greatest doc_id in question, None while unknown
    last_id: str | None = None
    documents_above: int = 0  # what is in question
    tokens_above: int = 0
    cut: Cut | None = None
    next_seen: bool = False  # the document after the cut was looked at

    @property
    def shift(self) -> int:
        """Bits to drop from an ordinal for a bin's number."""
        return max(0, (self.high - self.low).bit_length() - _BINS_BITS)

    @property
    def skip(self) -> int:
        """Bytes with which every doc_id in question begins."""
        if self.first_id is None or self.last_id is None:
            return 0
        pairs = zip(self.first_id.encode(), self.last_id.encode(), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    @property
    def one_score(self) -> bool:
        return self.low == self.high

    @property
    def one_id(self) -> bool:
        return self.first_id is not None and self.first_id == self.last_id

    def reach(self, documents: np.ndarray, tokens: np.ndarray) -> int | None:
        """Go past the items above the one in which the target is reached; its index, None if beyond all.

        `documents` and `tokens`: what each item holds, int64, items in descending order.
        """
        weights, passed = (tokens, self.tokens_above) if self.by_tokens else (documents, self.documents_above)
        index = int(np.searchsorted(np.cumsum(weights), self.target - passed))
        self.documents_above += int(documents[:index].sum())
        self.tokens_above += int(tokens[:index].sum())
        return index if index < len(weights) else None

    def found(self) -> Cut:
        """The cut, once it is known."""
        assert self.cut is not None, "what is in question holds the cut"
        return self.cut
