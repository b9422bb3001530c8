"""What every committed update of scores cost: noted in its commit, and from there in the table `scoring_runs`."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa

from attninf_assets.store.commits import Commit
from attninf_assets.store.follow import follow
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake

__all__ = ["ScoringRun", "complete_scoring_runs"]

_NOTE = "attninf.scoring_run"


@dataclass(frozen=True)
class ScoringRun:
    """An update about to be committed: the columns of `scoring_runs` that are known by then."""

    domain: str
    shard: str
    selector_fingerprint: str
    n_scored: int
    n_resumed: int
    n_reused: int
    tokens_scored: int
    seconds: float  # from the first look at the partition to the beginning of its commit
    device: str | None

    def note(self) -> dict[str, str]:
        """What to note in the commit of its scores, which follows at once."""
        return {_NOTE: json.dumps(asdict(self))}


def complete_scoring_runs(lake: Lake) -> int:
    """Add the runs to the table `scoring_runs` whose commits are in the log of `scores`, and they not; how many.

    A run that is killed right after its commit is so added by the next one.
    """
    return follow(lake, "scoring_runs", source="scores", rows_of=_rows_of)


def _rows_of(commit: Commit) -> pa.Table:
    schema = TABLES["scoring_runs"]
    if _NOTE not in commit.info:
        return schema.empty_table()
    run = json.loads(commit.info[_NOTE])
    row = run | {
        "scores_version": commit.version,
        "committed_at": datetime.fromtimestamp(commit.info["timestamp"] / 1000, UTC),
    }
    return pa.Table.from_pylist([{column: row[column] for column in schema.names}], schema=schema)
