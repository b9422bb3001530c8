"""Small score tables for the storage tests."""

import datetime

import pyarrow as pa

from attninf_assets.store.schemas import TABLES

__all__ = ["run_of", "scores_of"]


def scores_of(domain: str, shard: str, n: int, *, mark: str = "f", score: float = 1.0) -> pa.Table:
    """`n` rows of the scores table in one partition; `mark` is their selector's fingerprint."""
    rows = [
        {
            "doc_id": f"{domain}-{shard}-{i}",
            "domain": domain,
            "shard": shard,
            "text_sha256": "0" * 64,
            "n_tokens": i + 1,
            "loss_base": 2.0,
            "loss_reference": 4.0,
            "score": score,
            "selector_fingerprint": mark,
            "scored_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
        }
        for i in range(n)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["scores"])


def run_of(domain: str, shard: str, version: int) -> pa.Table:
    """The row of the table `scoring_runs` for a run that committed this version of the scores."""
    row = {
        "domain": domain,
        "shard": shard,
        "selector_fingerprint": "f",
        "n_scored": 1,
        "n_resumed": 0,
        "n_reused": 0,
        "tokens_scored": 1,
        "seconds": 0.5,
        "device": "cpu",
        "scores_version": version,
        "committed_at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    }
    return pa.Table.from_pylist([row], schema=TABLES["scoring_runs"])
