"""Coverage: how many documents and shards have a score by the selector in use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "PARTITION_STATES",
    "SHARD_STATES",
    "Coverage",
    "WorkOnShards",
    "coverage_by_domain",
    "indexed_shards",
    "partition_states",
    "require_coverage",
    "shard_states",
    "states_by_domain",
]

SHARD_STATES = ("current", "running", "stale", "missing", "failed", "not indexed", "source gone")

_MOST_NAMED = 20

PARTITION_STATES = pa.schema(
    [
        pa.field(name, type_, nullable=False)
        for name, type_ in [
            ("domain", pa.string()),
            ("shard", pa.string()),
            ("n_documents", pa.int64()),
            ("n_current", pa.int64()),
            ("state", pa.string()),
        ]
    ]
)


@dataclass(frozen=True)
class WorkOnShards:
    """What is known of the runs that index and score: shards by key, and runs."""

    indexed: Collection[str]  # indexed at some time
    running: Collection[str]  # in a run that has not ended, be it queued
    indexing_failed: Collection[str]  # last time
    scoring_failed: Collection[str]  # last time
    n_at_work: int  # runs that are scoring now, each on a device of its own


@dataclass(frozen=True)
class Coverage:
    """The number of indexed documents of a domain, and of those whose score is current."""

    domain: str
    n_documents: int
    n_scored: int
    n_orphaned: int = 0  # scores by the selector whose document, or its text, is no longer indexed

    @property
    def share(self) -> float:
        """The share of the domain's documents whose score is current, 0 to 1."""
        return self.n_scored / self.n_documents if self.n_documents else 1.0


def coverage_by_domain(connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str) -> list[Coverage]:
    """The coverage of each domain; a score is current if it is for this selector and the indexed text.

    Reads the views `documents` and `scores`.
    """
    rows = connection.execute(
        """
        WITH by_selector AS (SELECT * FROM scores WHERE selector_fingerprint = $1),
        indexed AS (
            SELECT domain, count(*) AS n_documents, count(by_selector.doc_id) AS n_scored
            FROM documents LEFT JOIN by_selector USING (domain, shard, doc_id, text_sha256) GROUP BY domain),
        scored AS (SELECT domain, count(*) AS n_scores FROM by_selector GROUP BY domain)
        SELECT domain, coalesce(n_documents, 0), coalesce(n_scored, 0), coalesce(n_scores, 0) - coalesce(n_scored, 0)
        FROM indexed FULL JOIN scored USING (domain) ORDER BY domain
        """,
        [selector_fingerprint],
    ).fetchall()
    return [Coverage(*row) for row in rows]


def partition_states(connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str) -> pa.Table:
    """The state of each shard's scores under a selector, from the views `documents` and `scores`, in their order.

    Columns: domain, shard, n_documents (indexed), n_current (of them, those with a score for this selector and text),
    state. A shard is `current` if every indexed document is and nothing else is stored; `missing` if it has documents
    and no score at all; `stale` otherwise, so also where documents with a score have left the corpus. Shards without
    documents and without scores have no row. Clocks play no part in it.
    """
    states = connection.sql(
        """
        WITH indexed AS (SELECT domain, shard, count(*) AS n_documents FROM documents GROUP BY ALL),
             stored AS (SELECT domain, shard, count(*) AS n_stored FROM scores GROUP BY ALL),
             matching AS (
                 SELECT domain, shard, count(*) AS n_current
                 FROM documents SEMI JOIN (SELECT * FROM scores WHERE selector_fingerprint = $fingerprint) AS ours
                 USING (domain, shard, doc_id, text_sha256) GROUP BY ALL
             )
        SELECT domain, shard, coalesce(n_documents, 0) AS n_documents, coalesce(n_current, 0) AS n_current,
               CASE WHEN n_stored IS NULL THEN 'missing'
                    WHEN n_current = n_documents AND n_documents = n_stored THEN 'current'
                    ELSE 'stale' END AS state
        FROM indexed FULL JOIN stored USING (domain, shard) LEFT JOIN matching USING (domain, shard)
        ORDER BY domain, shard
        """,
        params={"fingerprint": selector_fingerprint},
    )
    return states.to_arrow_table().cast(PARTITION_STATES)


def shard_states(
    stored: pa.Table, *, registered: Iterable[str], landed: Collection[str], work: WorkOnShards
) -> dict[str, str]:
    """The state of every shard that is registered or stored, by key: one of SHARD_STATES.

    `stored` is what `partition_states` gives. A shard is `source gone` if it is not among the `landed` ones, whatever
    else it is; `failed` if its last indexing failed, so that nobody knows what its file holds, or if it is `stale` or
    `missing` and its last scoring failed; `running` if it is not current and in a run; `not indexed` if it never was.
    One of which every row was refused is `current`: there is nothing to score.
    """
    states = {key: "current" if key in work.indexed else "not indexed" for key in registered}
    states |= {f"{row['domain']}.{row['shard']}": row["state"] for row in stored.to_pylist()}
    return {key: _state(key, state, landed=landed, work=work) for key, state in states.items()}


def _state(key: str, state: str, *, landed: Collection[str], work: WorkOnShards) -> str:
    if key not in landed:
        return "source gone"
    if key in work.indexing_failed:
        return "failed"
    if state == "current":
        return state
    if key in work.running:
        return "running"
    return "failed" if state != "not indexed" and key in work.scoring_failed else state


def indexed_shards(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The keys of the shards that have a document in the view `documents`."""
    rows = connection.execute("SELECT DISTINCT domain || '.' || shard FROM documents").fetchall()
    return {key for (key,) in rows}


def states_by_domain(states: Mapping[str, str]) -> dict[str, Counter[str]]:
    """The number of shards in each state, by domain; `states` as `shard_states` gives them."""
    counts: dict[str, Counter[str]] = {}
    for key, state in sorted(states.items()):
        counts.setdefault(key.partition(".")[0], Counter())[state] += 1
    return counts


def require_coverage(coverage: list[Coverage], *, at_least: float, never_indexed: Sequence[str] = ()) -> None:
    """Raise `ValueError` naming the domains of which less than `at_least` has a current score.

    Named, too, are domains with scores of documents that are no longer indexed, which could take a place in the
    selection, and, where all is asked for, shards whose documents nobody knows, as they were `never_indexed`.
    """
    if not any(c.n_documents for c in coverage):
        raise ValueError("no documents are indexed: materialize raw_corpus and attention_influence_scores first")
    if orphaned := [f"{c.domain} ({c.n_orphaned:,})" for c in coverage if c.n_orphaned]:
        raise ValueError(
            f"scores of documents that are no longer indexed in {', '.join(orphaned)}: materialize the changed shards' "
            "attention_influence_scores, which drops them, or where a shard's file is gone, run retire_shards"
        )
    short = [c for c in coverage if c.share < at_least]
    if short:
        listed = ", ".join(f"{c.domain} ({c.n_scored:,} of {c.n_documents:,})" for c in short)
        raise ValueError(
            f"documents without a current score in {listed}: materialize their shards' attention_influence_scores, "
            f"or lower min_coverage below {min(c.share for c in short):.4f}"
        )
    if never_indexed and at_least >= 1:
        more = f" and {len(never_indexed) - _MOST_NAMED:,} more" if len(never_indexed) > _MOST_NAMED else ""
        raise ValueError(
            f"shards that were never indexed: {', '.join(never_indexed[:_MOST_NAMED])}{more}: materialize their "
            "raw_corpus, run the job retire_shards where a file is gone for good, or lower min_coverage below 1"
        )
