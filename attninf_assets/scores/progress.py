"""Progress of scoring by the selector in use: what is done, what is left, how fast, when it ends, what it has cost."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attninf_assets.scores.estimates import ScoredTexts, rates_of
from attninf_assets.scores.staging import StagedScores, staged_shards
from attninf_assets.store.root import Root

if TYPE_CHECKING:
    import duckdb

__all__ = ["DomainProgress", "ScoringProgress", "earlier_selectors", "scoring_progress"]


@dataclass(frozen=True)
class DomainProgress:
    """A domain's documents and tokens with a current score, and what is left."""

    domain: str
    documents: int
    documents_done: int
    tokens_done: int
    tokens_left: int | None  # None where nothing tells: no score by any selector, and no measured bytes a token


@dataclass(frozen=True)
class ScoringProgress:
    """How far the scoring of the corpus by one selector is."""

    domains: tuple[DomainProgress, ...]
    documents_staged: int  # scored by runs that have not committed their shard yet
    tokens_staged: int
    tokens_per_second: float | None  # of one device, storage included; None where nothing was measured yet
    device_hours: float  # committed so far
    n_at_work: int  # runs that are scoring now, each on a device of its own

    @property
    def documents(self) -> int:
        """All indexed documents."""
        return sum(domain.documents for domain in self.domains)

    @property
    def documents_done(self) -> int:
        """Those with a score, committed or staged."""
        return sum(domain.documents_done for domain in self.domains) + self.documents_staged

    @property
    def tokens_done(self) -> int:
        """Their tokens."""
        return sum(domain.tokens_done for domain in self.domains) + self.tokens_staged

    @property
    def tokens_left(self) -> int | None:
        """Tokens of the others: counted where another selector scored them, else estimated from their bytes."""
        left = [domain.tokens_left for domain in self.domains]
        known = [tokens for tokens in left if tokens is not None]
        return max(0, sum(known) - self.tokens_staged) if len(known) == len(left) else None

    @property
    def device_hours_left(self) -> float | None:
        """What the rest takes at the measured rate."""
        if self.tokens_left is None or not self.tokens_per_second:
            return 0.0 if self.tokens_left == 0 else None
        return self.tokens_left / self.tokens_per_second / 3600

    @property
    def seconds_left(self) -> float | None:
        """Until the end, if as many runs stay at work as are now; None where none is, or nothing was measured."""
        if self.device_hours_left is None or not self.n_at_work:
            return None
        return 3600 * self.device_hours_left / self.n_at_work

    @property
    def is_complete(self) -> bool:
        """Whether every indexed document has a committed score by the selector, for its text."""
        return sum(domain.documents_done for domain in self.domains) == self.documents

    def __str__(self) -> str:
        done, documents = self.documents_done, self.documents
        share = f" ({done / documents:.0%})" if documents else ""
        left = "an unknown number" if self.tokens_left is None else f"about {self.tokens_left:,}"
        return f"{done:,} of {documents:,} documents scored{share}, {self.tokens_done:,} tokens done, {left} left"


def scoring_progress(
    connection: duckdb.DuckDBPyConnection,
    root: Root,
    *,
    selector_fingerprint: str,
    unfinished: Collection[str],
    n_at_work: int,
) -> ScoringProgress:
    """The progress of scoring by the selector; staged scores count for the `unfinished` shards, by key.

    Reads the views `documents`, `scores` and `scoring_runs`, and what is staged under the root.
    """
    rows = connection.execute(
        """
        SELECT domain, count(*),
               count(*) FILTER (WHERE selector_fingerprint = $1),
               coalesce(sum(n_tokens) FILTER (WHERE selector_fingerprint = $1), 0)::BIGINT,
               coalesce(sum(n_tokens) FILTER (WHERE selector_fingerprint <> $1), 0)::BIGINT,
               coalesce(sum(n_bytes) FILTER (WHERE selector_fingerprint IS NULL), 0)::BIGINT,
               coalesce(sum(n_bytes) FILTER (WHERE selector_fingerprint = $1), 0)::BIGINT,
               coalesce(sum(n_bytes) FILTER (WHERE selector_fingerprint <> $1), 0)::BIGINT
        FROM documents LEFT JOIN scores USING (domain, shard, doc_id, text_sha256)
        GROUP BY domain ORDER BY domain
        """,
        [selector_fingerprint],
    ).fetchall()
    texts = [
        of
        for domain, _, _, tokens_done, known_left, _, bytes_done, bytes_known in rows
        for of in (
            ScoredTexts(domain, True, bytes_done, tokens_done),
            ScoredTexts(domain, False, bytes_known, known_left),
        )
    ]
    rates = rates_of(texts, connection, root, selector_fingerprint=selector_fingerprint)
    domains = []
    for domain, documents, done, tokens_done, known_left, bytes_left, *_ in rows:
        left = known_left if not bytes_left else None
        if bytes_left and (bytes_per_token := rates.bytes_per_token_in(domain)):
            left = known_left + round(bytes_left / bytes_per_token)
        domains.append(DomainProgress(domain, documents, done, tokens_done, left))
    ((seconds,),) = connection.execute(
        "SELECT coalesce(sum(seconds), 0) FROM scoring_runs WHERE selector_fingerprint = $1 AND tokens_scored > 0",
        [selector_fingerprint],
    ).fetchall()
    staged = [
        StagedScores(root, selector_fingerprint, *key.split(".")).count()
        for key in staged_shards(root, selector_fingerprint)
        if key in unfinished
    ]
    return ScoringProgress(
        tuple(domains),
        documents_staged=sum(documents for documents, _ in staged),
        tokens_staged=sum(tokens for _, tokens in staged),
        tokens_per_second=rates.tokens_per_second,
        device_hours=seconds / 3600,
        n_at_work=n_at_work,
    )


def earlier_selectors(connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str) -> dict[str, int]:
    """Fingerprints of other selectors whose scores stand in the view `scores`, most first: in how many shards."""
    rows = connection.execute(
        """
        SELECT selector_fingerprint, count(DISTINCT (domain, shard)) AS n_shards
        FROM scores WHERE selector_fingerprint <> $1
        GROUP BY selector_fingerprint ORDER BY n_shards DESC, selector_fingerprint
        """,
        [selector_fingerprint],
    ).fetchall()
    return dict(rows)
