"""How much of the corpus has a score by the selector in use."""

from dataclasses import dataclass

import duckdb


@dataclass(frozen=True)
class Coverage:
    """Documents of a domain that are indexed, and those of them whose score is current."""

    domain: str
    n_documents: int
    n_scored: int

    @property
    def share(self) -> float:
        return self.n_scored / self.n_documents if self.n_documents else 1.0


def score_coverage(connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str) -> list[Coverage]:
    """Per domain, from the views `documents` and `scores`; a score is current if selector and text are."""
    rows = connection.execute(
        """
        SELECT domain, count(*), count(scores.doc_id)
        FROM documents LEFT JOIN (SELECT * FROM scores WHERE selector_fingerprint = $1) AS scores
        USING (domain, shard, doc_id, text_sha256)
        GROUP BY domain ORDER BY domain
        """,
        [selector_fingerprint],
    ).fetchall()
    return [Coverage(*row) for row in rows]


def require_coverage(coverage: list[Coverage], *, at_least: float) -> None:
    """Raise `ValueError` naming the domains of which less than `at_least` has a current score."""
    if not coverage:
        raise ValueError("no documents are indexed: materialize raw_corpus and attention_influence_scores first")
    short = [c for c in coverage if c.share < at_least]
    if short:
        listed = ", ".join(f"{c.domain} ({c.n_scored:,} of {c.n_documents:,})" for c in short)
        raise ValueError(
            f"documents without a current score in {listed}: materialize their shards' attention_influence_scores, "
            f"or lower min_coverage below {min(c.share for c in short):.4f}"
        )
