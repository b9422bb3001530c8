"""A client for backfills of a running system: choose partitions, launch one backfill of them, watch it to its end.

Dagster launches backfills only through its webserver, so all of this is GraphQL: the documents below are what the
installed version has to understand.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from attninf_assets.orchestration.connections.webserver import Webserver, WebserverError

PARTITIONS = """
query Partitions($asset: AssetKeyInput!) {
  assetNodeOrError(assetKey: $asset) {
    __typename
    ... on AssetNode { isPartitioned isMaterializable partitionKeys }
    ... on AssetNotFoundError { message }
  }
}"""
STATUSES = """
query Statuses($asset: AssetKeyInput!) {
  assetNodeOrError(assetKey: $asset) {
    __typename
    ... on AssetNode {
      assetPartitionStatuses {
        __typename
        ... on DefaultPartitionStatuses { unmaterializedPartitions failedPartitions }
      }
    }
  }
}"""
MATERIALIZED = """
query Materialized($asset: AssetKeyInput!, $keys: [String!]) {
  assetNodeOrError(assetKey: $asset) {
    __typename
    ... on AssetNode { latestMaterializationByPartition(partitions: $keys) { partition } }
  }
}"""
STALE = """
query Stale($asset: AssetKeyInput!, $keys: [String!]) {
  assetNodeOrError(assetKey: $asset) {
    __typename
    ... on AssetNode { staleStatusByPartition(partitions: $keys) }
  }
}"""
DAEMON = """
query BackfillDaemon {
  instance { daemonHealth { id daemonStatus(daemonType: "BACKFILL") { id healthy } } }
}"""
LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PartitionKeysNotFoundError { message }
    ... on UnauthorizedError { message }
    ... on PythonError { message }
  }
}"""
WATCH = """
query Watch($backfill: String!) {
  partitionBackfillOrError(backfillId: $backfill) {
    __typename
    ... on PartitionBackfill {
      status
      error { message }
      assetBackfillData {
        assetBackfillStatuses {
          __typename
          ... on AssetPartitionsStatusCounts {
            numPartitionsTargeted numPartitionsInProgress numPartitionsMaterialized numPartitionsFailed
          }
        }
      }
    }
    ... on BackfillNotFoundError { message }
    ... on PythonError { message }
  }
}"""
DOCUMENTS = (PARTITIONS, STATUSES, MATERIALIZED, STALE, DAEMON, LAUNCH, WATCH)

ENDED = ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")
_KEYS_AT_ONCE = 500  # of which one question asks for the staleness: about 2 s of the server's time
_PATIENCE = 60.0  # seconds that a server may be away while its backfill is watched


class UnknownPartitionError(ValueError):
    """The server does not have the asset named, or not that partition of it."""


@dataclass(frozen=True)
class PartitionedAsset:
    """An asset of a running system and the keys of its partitions."""

    server: Webserver
    name: str  # path components with slashes between
    keys: tuple[str, ...]

    @classmethod
    def at(cls, server: Webserver, name: str) -> "PartitionedAsset":
        """The asset as the server has it. Raises `UnknownPartitionError` if there is none, or it has no partitions."""
        node = server.ask(PARTITIONS, asset=_key(name))["assetNodeOrError"]
        if node["__typename"] != "AssetNode":
            raise UnknownPartitionError(f"{server.url}: there is no asset {name!r}, or its code location is not loaded")
        if not (node["isPartitioned"] and node["isMaterializable"]):
            raise UnknownPartitionError(f"{server.url}: asset {name!r} has no partitions that could be materialized")
        return cls(server, name, tuple(node["partitionKeys"]))

    def only(self, keys: Sequence[str]) -> list[str]:
        """The given keys without repetitions. Raises `UnknownPartitionError` naming the first that is no partition."""
        known = set(self.keys)
        for key in keys:
            if key not in known:
                near = get_close_matches(key, self.keys, n=3)
                hint = f"; near it: {', '.join(near)}" if near else f"; there are {len(known):,} others"
                raise UnknownPartitionError(f"{self.server.url}: {self.name} has no partition {key!r}{hint}")
        return list(dict.fromkeys(keys))

    def missing(self) -> list[str]:
        """Partitions that were never materialized, those that only ever failed among them."""
        statuses = self._ask(STATUSES)["assetPartitionStatuses"]
        failed = statuses["failedPartitions"]
        found = self._ask(MATERIALIZED, keys=failed)["latestMaterializationByPartition"] if failed else []
        materialized = {event["partition"] for event in found if event is not None}
        wanted = set(statuses["unmaterializedPartitions"]) | set(failed) - materialized
        return [key for key in self.keys if key in wanted]

    def stale(self) -> list[str]:
        """Partitions whose inputs have other data versions than those they were made from."""
        return [
            key
            for first in range(0, len(self.keys), _KEYS_AT_ONCE)
            for some in [self.keys[first : first + _KEYS_AT_ONCE]]
            for key, status in zip(some, self._ask(STALE, keys=some)["staleStatusByPartition"], strict=True)
            if status == "STALE"
        ]

    def failed(self) -> set[str]:
        """Partitions whose last run failed before they were materialized."""
        return set(self._ask(STATUSES)["assetPartitionStatuses"]["failedPartitions"])

    def launch(self, keys: Sequence[str]) -> "Backfill":
        """Launch one backfill of the partitions. Raises `WebserverError` where the server refuses."""
        params = {"assetSelection": [_key(self.name)], "partitionNames": list(keys)}
        answer = self.server.ask(LAUNCH, params=params)["launchPartitionBackfill"]
        if answer["__typename"] != "LaunchBackfillSuccess":
            raise WebserverError(
                f"{self.server.url}: the backfill was refused: {answer.get('message', answer['__typename'])}"
            )
        return Backfill(self, answer["backfillId"], tuple(keys))

    def _ask(self, document: str, **variables: Any) -> dict[str, Any]:
        node: dict[str, Any] = self.server.ask(document, asset=_key(self.name), **variables)["assetNodeOrError"]
        if node["__typename"] != "AssetNode":
            raise UnknownPartitionError(f"{self.server.url}: asset {self.name!r} is gone")
        return node


@dataclass(frozen=True)
class BackfillProgress:
    """A report on how far a backfill is; counts are of partitions."""

    status: str  # Dagster's BulkActionStatus
    targeted: int
    materialized: int
    failed: int
    in_progress: int
    seconds: float  # since watching began
    error: str | None

    @property
    def has_ended(self) -> bool:
        """Whether the backfill has ended, whatever its outcome."""
        return self.status in ENDED

    @property
    def succeeded(self) -> bool:
        """Whether every partition was materialized."""
        return self.has_ended and self.status.startswith("COMPLETED") and self.materialized == self.targeted

    def __str__(self) -> str:
        ended = self.materialized + self.failed
        line = (
            f"{self.materialized:,} of {self.targeted:,} partitions done, {self.failed:,} failed, "
            f"{self.in_progress:,} in progress"
        )
        if not ended or not self.seconds or self.has_ended:
            return line
        left = self.seconds * (self.targeted - ended) / ended
        return f"{line}; {60 * ended / self.seconds:.1f} a minute, about {left / 60:.0f} min left"


@dataclass(frozen=True)
class Backfill:
    """A backfill that was launched."""

    asset: PartitionedAsset
    backfill_id: str
    keys: tuple[str, ...]

    @property
    def url(self) -> str:
        """Its page in the UI."""
        return f"{self.asset.server.url}/runs/b/{self.backfill_id}"

    def progress(self, *, since: float) -> BackfillProgress:
        """How far the backfill is now; `since` is when watching began, in seconds on the monotonic clock."""
        answer = self.asset.server.ask(WATCH, backfill=self.backfill_id)["partitionBackfillOrError"]
        if answer["__typename"] != "PartitionBackfill":
            raise WebserverError(f"{self.url}: {answer.get('message', answer['__typename'])}")
        data = answer["assetBackfillData"]
        counts = data["assetBackfillStatuses"][0] if data and data["assetBackfillStatuses"] else {}
        return BackfillProgress(
            status=answer["status"],
            targeted=counts.get("numPartitionsTargeted", len(self.keys)),
            materialized=counts.get("numPartitionsMaterialized", 0),
            failed=counts.get("numPartitionsFailed", 0),
            in_progress=counts.get("numPartitionsInProgress", 0),
            seconds=time.monotonic() - since,
            error=answer["error"]["message"] if answer["error"] else None,
        )

    def watch(self, *, every: float = 2.0, patience: float = _PATIENCE) -> Iterator[BackfillProgress]:
        """The backfill's progress each time it changes, until its end.

        Asks every `every` seconds. Raises `WebserverError` where the server does not answer for `patience` seconds.
        """
        since = answered = time.monotonic()
        seen: tuple[int, ...] = ()
        while True:
            try:
                progress = self.progress(since=since)
            except WebserverError as error:
                if time.monotonic() - answered > patience:
                    raise WebserverError(f"{error}; the backfill goes on: {self.url}") from error
                time.sleep(every)
                continue
            answered = time.monotonic()
            counts = (progress.materialized, progress.failed, progress.in_progress)
            if counts != seen or progress.has_ended:
                seen = counts
                yield progress
            if progress.has_ended:
                return
            time.sleep(every)

    def failed(self) -> list[str]:
        """Its partitions whose last run failed."""
        failed = self.asset.failed()
        return [key for key in self.keys if key in failed]


def backfills_are_run(server: Webserver) -> bool:
    """Whether the daemon that works backfills off is alive; without it they wait."""
    status = server.ask(DAEMON)["instance"]["daemonHealth"]["daemonStatus"]
    return bool(status["healthy"])


def _key(name: str) -> dict[str, list[str]]:
    return {"path": name.split("/")}
