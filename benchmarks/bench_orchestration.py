"""What 5,000 partitions cost the daemon: a sensor tick, an automation tick, the creation of a backfill.

    python -m benchmarks.bench_orchestration [partitions]

Events are stored as the assets would store them; nothing is indexed or scored. SQLite instance storage on local disk.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.execution.backfill import PartitionBackfill

from attninf_assets.automation import new_shards
from attninf_assets.definitions import definitions
from attninf_assets.partitions import CORPUS_SHARDS
from attninf_assets.resources import resources_from_environment

N_DOMAINS = 10


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Print wall and CPU time of a block."""
    wall, cpu = time.monotonic(), time.process_time()
    yield
    print(f"{what:<62} {time.monotonic() - wall:8.2f} s wall {time.process_time() - cpu:8.2f} s CPU", flush=True)


def main() -> None:
    """Measure everything once."""
    n_partitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    with tempfile.TemporaryDirectory() as folder:
        keys = _land(Path(folder), n_partitions)
        os.environ |= {"ATTNINF_CORPUS": f"{folder}/corpus.yaml", "ATTNINF_ROOT": f"{folder}/root"}
        with dg.DagsterInstance.local_temp(folder) as instance:
            _sensor(instance, keys)
            _automation(instance, keys)
            _backfill(instance, keys)


def _land(folder: Path, n_partitions: int) -> list[str]:
    old = time.time() - 3600
    lines = ["domains:"]
    keys = []
    for domain in (f"domain{d}" for d in range(N_DOMAINS)):
        (folder / domain).mkdir()
        lines.append(f"  {domain}: {{files: '{domain}/*.jsonl', format: jsonl}}")
        for shard in range(n_partitions // N_DOMAINS):
            path = folder / domain / f"{shard:05}.jsonl"
            path.write_text('{"text": "a document"}\n')
            os.utime(path, (old, old))
            keys.append(f"{domain}.{shard:05}")
    (folder / "corpus.yaml").write_text("\n".join(lines))
    return keys


def _sensor(instance: dg.DagsterInstance, keys: list[str]) -> None:
    cursor: str | None = None
    corpus = resources_from_environment()["corpus"]

    def tick() -> dg.SensorResult:
        nonlocal cursor
        with dg.build_sensor_context(instance=instance, cursor=cursor, resources={"corpus": corpus}) as context:
            result = new_shards(context)
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        for request in result.dynamic_partitions_requests or []:
            instance.add_dynamic_partitions(CORPUS_SHARDS, list(request.partition_keys))
        return result

    with measured(f"sensor tick, {len(keys):,} files just landed (100 requested)"):
        tick()
    while tick().run_requests:
        pass
    with measured(f"sensor tick, {len(keys):,} known, nothing new"):
        tick()
    print(f"{'sensor cursor':<62} {len(cursor or ''):8,} bytes")


def _automation(instance: dg.DagsterInstance, keys: list[str]) -> None:
    project = definitions()
    cursor: AssetDaemonCursor | None = None

    def tick() -> int:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(project, instance=instance, cursor=cursor)
        cursor = result.cursor
        return result.get_num_requested(dg.AssetKey("attention_influence_scores"))

    def made(asset: str, version: str, partition: str | None = None) -> None:
        tags = {"dagster/data_version": version}
        instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey(asset), partition=partition, tags=tags))

    with measured(f"(preparation: {2 * len(keys):,} materializations stored)"):
        for key in keys:
            made("raw_corpus", "1", key)
        made("retrieval_heads", "heads 1")
        for key in keys:
            made("attention_influence_scores", "heads 1", key)
    _tick("automation tick, first", tick, 0)
    _tick("automation tick, nothing changed", tick, 0)
    made("retrieval_heads", "heads 2")
    _tick(f"automation tick, new heads: {len(keys):,} requested", tick, len(keys))
    made("raw_corpus", "2", keys[0])
    _tick("automation tick, one changed shard among them", tick, 1)


def _tick(what: str, tick: Callable[[], int], expected: int) -> None:
    with measured(what):
        requested = tick()
    assert requested == expected, f"{what}: {requested} requested, expected {expected}"


def _backfill(instance: dg.DagsterInstance, keys: list[str]) -> None:
    graph = definitions().resolve_asset_graph()
    with measured(f"backfill of {len(keys):,} partitions created"):
        instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id="benchmark",
                asset_graph=graph,
                partition_names=keys,
                asset_selection=[dg.AssetKey("attention_influence_scores")],
                backfill_timestamp=time.time(),
                tags={},
                dynamic_partitions_store=instance,
                all_partitions=False,
                title=None,
                description=None,
                run_config=None,
            )
        )


if __name__ == "__main__":
    main()
