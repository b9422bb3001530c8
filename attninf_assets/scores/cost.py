"""The cost of scoring: the estimate that was approved, and what runs took."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from attninf_assets.store.damage import Damage
from attninf_assets.store.json_records import fault_of_record, read_record, sealed
from attninf_assets.store.root import Root

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "SCORING_HISTORY",
    "Approval",
    "Cost",
    "Estimate",
    "Spent",
    "cost_of",
    "predicted_and_actual",
    "read_approval",
    "scoring_history",
    "spent",
]

SCORING_HISTORY = pa.schema(
    [
        pa.field(name, type_, nullable=False)
        for name, type_ in [
            ("domain", pa.string()),
            ("shard", pa.string()),
            ("tokens_scored", pa.int64()),
            ("seconds", pa.float64()),
        ]
    ]
)


@dataclass(frozen=True)
class Estimate:
    """The predicted size and cost of a rescoring. What cannot be known without a measured rate is None."""

    partitions: int
    documents: int
    n_bytes: int
    tokens: int | None
    device_hours: float | None
    money: float | None


@dataclass(frozen=True)
class Cost:
    """The throughput and cost of scoring that was done, on one device."""

    tokens_per_second: float  # 0 where it took no time
    device_hours: float
    money: float


@dataclass(frozen=True)
class Spent:
    """The sum of what scoring by one selector has taken since a moment."""

    partitions: int
    documents: int
    tokens: int
    device_hours: float


@dataclass(frozen=True)
class Approval:
    """The last preview of a selector's scoring, and whether it may run; kept under the root."""

    selector_fingerprint: str
    previewed_at: str  # ISO 8601, UTC
    estimate: Estimate
    approved: bool

    def publish(self, root: Root) -> None:
        """Store the approval under the root, in place of an earlier one for the same selector."""
        root.write_bytes(_path(self.selector_fingerprint), sealed(json.dumps(asdict(self), indent=1)))


def read_approval(root: Root, selector_fingerprint: str) -> Approval | None:
    """The selector's last preview as `publish` stored it; None if there was none.

    Raises `ValueError` naming the file if it is damaged.
    """
    path = _path(selector_fingerprint)
    try:
        approval = read_record(root, path, Approval, made_by="rescoring_preview")
    except FileNotFoundError:
        return None
    if approval.selector_fingerprint != selector_fingerprint:
        raise ValueError(
            f"{root.uri}/{path}: damaged, materialize rescoring_preview again: "
            f"selector_fingerprint: {approval.selector_fingerprint!r} is another selector's"
        )
    return approval


def damaged_previews(root: Root) -> Iterator[Damage]:
    """Stored previews that are not what was written."""
    for path in root.list("previews"):
        if "/." not in path and (wrong := fault_of_record(root, path)):
            yield Damage(path, wrong)


def _path(selector_fingerprint: str) -> str:
    return f"previews/{selector_fingerprint}.json"


def scoring_history(connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str) -> pa.Table:
    """The updates that scored something by this selector, in order of their commits; columns: SCORING_HISTORY.

    Reads the view `scoring_runs`. The order is that of the versions committed, so no clock decides it.
    """
    history = connection.sql(
        """
        SELECT domain, shard, tokens_scored, seconds FROM scoring_runs
        WHERE selector_fingerprint = $fingerprint AND tokens_scored > 0 ORDER BY scores_version, domain, shard
        """,
        params={"fingerprint": selector_fingerprint},
    )
    return history.to_arrow_table().cast(SCORING_HISTORY)


def cost_of(tokens: int, seconds: float, *, price_per_device_hour: float) -> Cost:
    """The cost of so many tokens scored in so many seconds."""
    device_hours = seconds / 3600
    return Cost(tokens / seconds if seconds else 0.0, device_hours, device_hours * price_per_device_hour)


def spent(connection: duckdb.DuckDBPyConnection, *, selector_fingerprint: str, since: str) -> Spent:
    """The sum of what was scored by this selector and committed after `since` (ISO 8601).

    Reads the view `scoring_runs`.
    """
    (row,) = connection.execute(
        """
        SELECT count(DISTINCT (domain, shard)), coalesce(sum(n_scored), 0)::BIGINT,
               coalesce(sum(tokens_scored), 0)::BIGINT, coalesce(sum(seconds), 0) / 3600
        FROM scoring_runs
        WHERE selector_fingerprint = $1 AND committed_at > $2::TIMESTAMPTZ AND n_scored > 0
        """,
        [selector_fingerprint, since],
    ).fetchall()
    return Spent(*row)


def predicted_and_actual(
    connection: duckdb.DuckDBPyConnection, approval: Approval
) -> dict[str, tuple[float | None, float]]:
    """The figures of `Spent` by name: what the preview said, None where that was unknown, and what was spent since it.

    Reads the view `scoring_runs`.
    """
    actual = spent(connection, selector_fingerprint=approval.selector_fingerprint, since=approval.previewed_at)
    return {name: (getattr(approval.estimate, name), value) for name, value in asdict(actual).items()}
