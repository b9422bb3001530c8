"""Scores beside features, drawn from the tables in memory that does not grow with them; and how each source spreads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from attninf_assets.scores.features.confounders import SHOWN, DomainConfounders, confounders_of

if TYPE_CHECKING:
    import duckdb

__all__ = ["NEAR_CONSTANT", "SAMPLE", "confounders_by_domain"]

SAMPLE = 100_000  # documents of a domain that are looked at, about; all where it has no more
NEAR_CONSTANT = 0.1  # of its domain's spread: below it a source's scores are nearly the same
_OF_SOURCE = 1_000  # documents of a source from which its spread is known well enough
_FEWEST = 20  # documents from which on a source has a spread

# A document is drawn if its place between 0 and 1, which follows from seed and doc_id alone, is below the share wanted.
_PLACE = "md5_number_lower($seed || chr(0) || doc_id)::DOUBLE / 18446744073709551616"
_SCORED = """
    SELECT domain, shard, doc_id, text_sha256, n_tokens, loss_base, score FROM scores
    WHERE selector_fingerprint = $fingerprint AND isfinite(score)
"""
_SAMPLED = f"""
    WITH scored AS ({_SCORED}),
    drawn AS (
        SELECT scored.*, n FROM scored JOIN (SELECT domain, count(*) AS n FROM scored GROUP BY domain) USING (domain)
        WHERE {_PLACE} < $size / n
    )
    SELECT domain, shard, doc_id, n, n_tokens, loss_base, score, repetition, repeated_lines, zstd_ratio, alphabetic,
           licence_markers, log_markers, (near_duplicate_cluster IS NOT NULL)::INT AS near_duplicate
    FROM drawn JOIN document_features USING (domain, shard, doc_id, text_sha256) ORDER BY domain, doc_id
"""
_SPREADS = f"""
    WITH scored AS ({_SCORED}),
    drawn AS (
        SELECT scored.*, n FROM scored
        JOIN (SELECT domain, shard, count(*) AS n FROM scored GROUP BY domain, shard) USING (domain, shard)
        WHERE {_PLACE} < {_OF_SOURCE} / n
    )
    SELECT domain, shard, count(*) AS n, quantile_cont(score, 0.9) - quantile_cont(score, 0.1) AS spread
    FROM drawn GROUP BY domain, shard ORDER BY domain, shard
"""

Columns = Mapping[str, npt.NDArray[Any]]


def confounders_by_domain(
    connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str, size: int = SAMPLE, seed: int = 0
) -> list[tuple[DomainConfounders, Columns]]:
    """What the scores of each domain go with, and the columns that this was found in.

    Reads the views `scores` and `document_features`. Of a domain with more documents than `size`, about so many are
    drawn: which ones follows from `seed` and doc_ids alone. A domain with fewer than 4 is left out.
    """
    asked: dict[str, object] = {"fingerprint": selector_fingerprint, "seed": str(seed)}
    sampled = connection.execute(_SAMPLED, {**asked, "size": float(size)}).fetchnumpy()
    columns = {name: np.asarray(values) for name, values in sampled.items()}
    spreads = connection.execute(_SPREADS, asked).fetchall()
    found: list[tuple[DomainConfounders, Columns]] = []
    for domain in np.unique(columns["domain"].astype(str)):
        in_N = columns["domain"] == domain
        of_domain = {name: columns[name][in_N] for name in (*SHOWN, "shard", "doc_id", "score", "n")}
        if in_N.sum() < 4:
            continue
        low, high = np.quantile(of_domain["score"], [0.1, 0.9])
        near_constant = tuple(
            shard
            for other, shard, n, spread in spreads
            if other == domain and n >= _FEWEST and spread < NEAR_CONSTANT * (high - low)
        )
        of = confounders_of(
            str(domain), of_domain, n_documents=int(of_domain["n"][0]), near_constant_sources=near_constant
        )
        found.append((of, of_domain))
    return found
