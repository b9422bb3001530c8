"""What scoring all documents without a current score would take, by domain, and the documents that stand out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from attninf_assets.scores.cost import Estimate
from attninf_assets.scores.trial import read_trial
from attninf_assets.store.root import Root

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "DomainEstimate",
    "LargeDocument",
    "Rates",
    "ScoredTexts",
    "estimates_by_domain",
    "largest_documents",
    "measured_rates",
    "rates_of",
    "together",
]

_RUNS_MEASURED = 50  # the latest that scored anything


@dataclass(frozen=True)
class Rates:
    """Bytes of text per token, and tokens scored per second. None where nothing was measured yet."""

    bytes_per_token: float | None  # over all domains
    tokens_per_second: float | None  # of one device
    of_domain: Mapping[str, float] = field(default_factory=dict)  # bytes per token
    measured_on: str = "nothing yet"  # what tokens_per_second was measured on

    def given(self, *, tokens_per_second: float | None, bytes_per_token: float | None) -> Rates:
        """With the rates that somebody gave in place of the measured ones; None leaves what was measured."""
        rates = self
        if tokens_per_second:
            rates = replace(rates, tokens_per_second=tokens_per_second, measured_on="nothing: it was given")
        return replace(rates, bytes_per_token=bytes_per_token, of_domain={}) if bytes_per_token else rates

    def bytes_per_token_in(self, domain: str) -> float | None:
        """Of the domain where it is known, else of all together."""
        return self.of_domain.get(domain, self.bytes_per_token)


@dataclass(frozen=True)
class DomainEstimate:
    """The documents of a domain without a current score, and what scoring them would take."""

    domain: str
    partitions: int
    documents: int
    n_bytes: int
    tokens: int | None
    device_hours: float | None
    money: float | None


@dataclass(frozen=True)
class LargeDocument:
    """A document without a current score, with its share of all such documents' bytes."""

    domain: str
    shard: str
    doc_id: str
    n_bytes: int
    share: float  # 0 to 1


@dataclass(frozen=True)
class ScoredTexts:
    """The bytes and tokens of a domain's indexed documents that are scored by the selector, or by others."""

    domain: str
    is_ours: bool
    n_bytes: int
    n_tokens: int


def measured_rates(connection: duckdb.DuckDBPyConnection, root: Root, *, selector_fingerprint: str) -> Rates:
    """The rates at which the selector scores: measured in its own scores and runs, else in its trial, else in others'.

    Speed is that of its latest runs, loading and storage included; of its trial, without these; of the latest runs by
    other selectors. Bytes per token are those of each domain's documents that it has scored, else of the trial, else of
    all scored documents. Reads the views `documents`, `scores` and `scoring_runs`, and the trial under the root.
    """
    rows = connection.execute(
        """
        SELECT domain, selector_fingerprint = $1 AS is_ours, sum(n_bytes)::BIGINT, sum(n_tokens)::BIGINT
        FROM documents JOIN scores USING (domain, shard, doc_id, text_sha256) GROUP BY ALL
        """,
        [selector_fingerprint],
    ).fetchall()
    return rates_of([ScoredTexts(*row) for row in rows], connection, root, selector_fingerprint=selector_fingerprint)


def rates_of(
    texts: Sequence[ScoredTexts], connection: duckdb.DuckDBPyConnection, root: Root, *, selector_fingerprint: str
) -> Rates:
    """The same, where the scored documents are counted already. Reads the view `scoring_runs` alone."""
    trial = read_trial(root, selector_fingerprint)
    known = [of for of in texts if of.n_tokens]
    ours = {of.domain: of.n_bytes / of.n_tokens for of in known if of.is_ours}
    theirs = {of.domain: of.n_bytes / of.n_tokens for of in known if not of.is_ours}
    tried = {} if trial is None else trial.bytes_per_token
    of_all = sum(of.n_bytes for of in known) / sum(of.n_tokens for of in known) if known else None
    if of_all is None and tried:
        of_all = sum(tried.values()) / len(tried)
    of_domain = theirs | tried | ours
    if (by_ours := _speed(connection, "=", selector_fingerprint)) is not None:
        return Rates(of_all, by_ours[0], of_domain, f"{by_ours[1]} by this selector")
    if trial is not None:
        on = f"{trial.told_documents} when the selector was made, loading and storage left out"
        return Rates(of_all, trial.tokens_per_second, of_domain, on)
    if (by_others := _speed(connection, "<>", selector_fingerprint)) is not None:
        return Rates(of_all, by_others[0], of_domain, f"{by_others[1]} by other selectors")
    return Rates(of_all, None, of_domain)


def _speed(connection: duckdb.DuckDBPyConnection, whose: str, selector_fingerprint: str) -> tuple[float, str] | None:
    """Tokens per second of the latest runs, and which they are; None where there are none."""
    ((n_runs, speed),) = connection.execute(
        "SELECT count(*), sum(tokens_scored) / nullif(sum(seconds), 0) FROM (SELECT * FROM scoring_runs "
        f"WHERE tokens_scored > 0 AND selector_fingerprint {whose} $1 ORDER BY committed_at DESC LIMIT $2)",
        [selector_fingerprint, _RUNS_MEASURED],
    ).fetchall()
    latest = "the latest scoring" if n_runs == 1 else f"the latest {n_runs:,} scorings"
    return None if speed is None else (speed, f"{latest} of a shard")


def estimates_by_domain(
    connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str, rates: Rates, price_per_device_hour: float
) -> list[DomainEstimate]:
    """The estimate for the documents of the view `documents` without a score in `scores` for this selector and text."""
    rows = connection.execute(
        f"""
        SELECT domain, count(DISTINCT shard), count(*), coalesce(sum(n_bytes), 0)::BIGINT
        FROM {_LEFT} GROUP BY domain ORDER BY domain
        """,
        [selector_fingerprint],
    ).fetchall()
    found = []
    for domain, partitions, documents, n_bytes in rows:
        bytes_per_token = rates.bytes_per_token_in(domain)
        tokens = round(n_bytes / bytes_per_token) if bytes_per_token else None
        hours = tokens / rates.tokens_per_second / 3600 if tokens is not None and rates.tokens_per_second else None
        money = None if hours is None else hours * price_per_device_hour
        found.append(DomainEstimate(domain, partitions, documents, n_bytes, tokens, hours, money))
    return found


def together(domains: Sequence[DomainEstimate]) -> Estimate:
    """The estimate over all domains; what is not known of one of them is not known of all."""

    def total(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    tokens = total([domain.tokens for domain in domains])
    hours = total([domain.device_hours for domain in domains])
    money = total([domain.money for domain in domains])
    return Estimate(
        partitions=sum(domain.partitions for domain in domains),
        documents=sum(domain.documents for domain in domains),
        n_bytes=sum(domain.n_bytes for domain in domains),
        tokens=None if tokens is None else int(tokens),
        device_hours=None if hours is None else float(hours),
        money=None if money is None else float(money),
    )


def largest_documents(
    connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str, at_most: int
) -> list[LargeDocument]:
    """The largest documents without a current score, largest first."""
    rows = connection.execute(
        f"""
        SELECT domain, shard, doc_id, n_bytes, n_bytes / nullif(sum(n_bytes) OVER (), 0)
        FROM {_LEFT} ORDER BY n_bytes DESC, domain, shard, doc_id LIMIT $2
        """,
        [selector_fingerprint, at_most],
    ).fetchall()
    return [
        LargeDocument(domain, shard, doc_id, n_bytes, share or 0.0) for domain, shard, doc_id, n_bytes, share in rows
    ]


_LEFT = """
    documents ANTI JOIN (SELECT * FROM scores WHERE selector_fingerprint = $1) AS ours
    USING (domain, shard, doc_id, text_sha256)
"""
