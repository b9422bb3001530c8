"""What 5,000 partitions cost: sensor and automation ticks, the partitions page, a backfill until its runs are created,
a renewal of the coverage.

    python -m benchmarks.bench_orchestration [partitions]

Events are stored as the assets would store them; nothing is indexed or scored. SQLite instance storage in TMPDIR.
Ticks are evaluated as the daemon does it, over definitions that a code server sent and that are loaded once; cursor and
evaluations are stored. The page is looked at in a headless Chromium, where there is one.
"""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._serdes import deserialize_value, serialize_value
from dagster._time import get_current_datetime

from attninf_assets.definitions import definitions
from attninf_assets.influence.detection import AnswerLoss, HeadDetection, HeadEvidence
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import Selector
from attninf_assets.orchestration.assets.coverage import survey
from attninf_assets.orchestration.automation.coverage_watch import coverage_watch
from attninf_assets.orchestration.automation.new_shards import new_shards
from attninf_assets.orchestration.connections.resources import CorpusResource
from attninf_assets.orchestration.connections.settings import read_settings, resources_from
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets.orchestration.runs.shard_work import failure_reasons
from attninf_assets.scores.progress import scoring_progress
from attninf_assets.selector.stored import Detection, publish_selector
from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from benchmarks.rigs.browser import find_chromium, open_page
from benchmarks.rigs.live import live_system, prepare_home

SCORES = dg.AssetKey("attention_influence_scores")
N_DOMAINS = 10
_READ_BY_PROGRESS = ("documents", "scores", "scoring_runs")
N_RUNS = 50  # created for a backfill; each takes the daemon as long as the last


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
        home = Path(folder) / "home"
        prepare_home(home)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            _sensor(instance, keys)
            with _loaded(instance) as workspace:
                tick = _automation(instance, workspace, keys)
                _page(home, keys)
                _backfill(instance, workspace, keys[: 4 * N_RUNS])
                _tick(f"automation tick, {4 * N_RUNS} partitions in queued runs", tick, 0)
                _coverage(instance, Path(folder), keys)


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
    corpus = resources_from(read_settings())["corpus"]

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


@contextmanager
def _loaded(instance: dg.DagsterInstance) -> Iterator[WorkspaceProcessContext]:
    """The project as the daemon sees it."""
    origin = LoadableTargetOrigin(executable_path=sys.executable, module_name="attninf_assets.definitions")
    location = InProcessCodeLocationOrigin(origin, location_name="attninf_assets")
    with WorkspaceProcessContext(instance, InProcessTestWorkspaceLoadTarget(location)) as workspace:
        yield workspace


def _automation(instance: dg.DagsterInstance, workspace: WorkspaceProcessContext, keys: list[str]) -> Callable[[], int]:
    """Ticks from the first on, and what evaluates the next."""
    graph = workspace.create_request_context().asset_graph
    cursor, number = serialize_value(AssetDaemonCursor.empty()), 0
    storage = instance.schedule_storage
    assert storage is not None

    def tick() -> int:
        nonlocal cursor, number
        number += 1
        evaluation = AutomationTickEvaluationContext(
            evaluation_id=number,
            instance=instance,
            asset_graph=graph,
            cursor=deserialize_value(cursor, AssetDaemonCursor),
            materialize_run_tags={},
            observe_run_tags={},
            auto_observe_asset_keys=set(),
            asset_selection=dg.AssetSelection.all(),
            logger=logging.getLogger(__name__),
            emit_backfills=True,
        )
        requests, after, evaluations = evaluation.evaluate()
        cursor = serialize_value(after)
        with partition_loading_context(get_current_datetime(), instance):
            storage.add_auto_materialize_asset_evaluations(number, [e.with_run_ids(set()) for e in evaluations])
            return sum(_requested(request) for request in requests)

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
    _tick("automation tick, nothing changed since", tick, 0)
    print(f"{'automation cursor':<62} {len(cursor):8,} bytes")
    return tick


def _requested(request: dg.RunRequest) -> int:
    """How many partitions of the scores a request asks for."""
    if (subset := request.asset_graph_subset) is not None:
        return len(subset.get_partitions_subset(SCORES)) if SCORES in subset.asset_keys else 0
    return int(SCORES in (request.asset_selection or ()))


def _tick(what: str, tick: Callable[[], int], expected: int) -> None:
    with measured(what):
        requested = tick()
    assert requested == expected, f"{what}: {requested} requested, expected {expected}"


def _page(home: Path, keys: list[str]) -> None:
    """The partitions page of the scores: its main queries, and the page itself until it says how many there are."""
    query = """{ assetNodeOrError(assetKey: {path: ["attention_influence_scores"]}) { ... on AssetNode {
      partitionStats { numMaterialized } partitionKeysByDimension { partitionKeys }
      assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions } } } } }"""
    with live_system(home, daemon=False) as live:
        for again in ("first", "again"):
            with measured(f"partitions page, its queries, {again}"):
                answer = live.ask(query)["assetNodeOrError"]
            assert answer["partitionStats"] == {"numMaterialized": len(keys)}
        if find_chromium() is None:
            print("partitions page: no chromium here")
            return
        with open_page(home / "profile") as page:
            for again in ("first", "again"):
                page.go("about:blank")
                with measured(f"partitions page in Chromium, {again}"):
                    page.go(f"{live.url}/assets/attention_influence_scores?view=partitions")
                    page.wait_for_text(f"Materialized ({len(keys)})")


def _backfill(instance: dg.DagsterInstance, workspace: WorkspaceProcessContext, keys: list[str]) -> None:
    graph = workspace.create_request_context().asset_graph
    with measured(f"backfill of {len(keys):,} partitions stored"):
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id=f"benchmark-{len(keys)}",
            asset_graph=graph,
            partition_names=keys,
            asset_selection=[SCORES],
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(backfill)
    with measured("its runs created and queued by the backfill daemon"):
        for error in execute_backfill_iteration(workspace, logging.getLogger(__name__)):
            assert error is None, error
    print(f"{'runs':<62} {instance.get_runs_count():8,}")


def _coverage(instance: dg.DagsterInstance, folder: Path, keys: list[str]) -> None:
    """What a renewal of the coverage looks at, with a document and a score in every shard, and runs in the queue; then
    all of it, as a run materializes it with its check."""
    lake = Lake(Root.at(folder / "root"))
    fingerprint = _publish_selector(lake.root)
    columns = {
        "domain": [key.partition(".")[0] for key in keys],
        "shard": [key.partition(".")[2] for key in keys],
        "doc_id": ["document"] * len(keys),
        "text_sha256": ["0" * 64] * len(keys),
    }
    n = len(keys)
    score = {
        "n_tokens": [100] * n,
        "loss_base": [1.0] * n,
        "loss_reference": [2.0] * n,
        "score": [1.0] * n,
        "selector_fingerprint": ["earlier"] * n,
        "scored_at": [datetime(2026, 1, 1, tzinfo=UTC)] * n,
    }
    source = {"source_uri": ["file"] * n, "source_row": [0] * n, "n_bytes": [400] * n, "source_version": ["1"] * n}
    with measured(f"(preparation: {n:,} shards in the tables)"):
        lake.replace("documents", pa.table({**columns, **source}))
        lake.replace("scores", pa.table({**columns, **score}))
    corpus = resources_from(read_settings())["corpus"]
    assert isinstance(corpus, CorpusResource)
    with dg.build_sensor_context(instance=instance) as context, measured("tick of coverage_watch"):
        coverage_watch(context)
    for again in ("first", "again"):
        with measured(f"coverage: states of {n:,} shards, {again}"):
            found = survey(instance, corpus, lake, selector_fingerprint=fingerprint)
    assert len(found.states) == n
    with measured("coverage: progress of documents and tokens"), connect(lake, *_READ_BY_PROGRESS) as connection:
        progress = scoring_progress(
            connection, lake.root, selector_fingerprint=fingerprint, unfinished=found.not_current(), n_at_work=1
        )
    assert progress.tokens_left == 100 * n
    with measured("coverage: why 50 partitions failed, of as many runs"):
        failure_reasons(instance, SCORES, keys[: 4 * N_RUNS : 4])
    job = definitions().resolve_implicit_global_asset_job_def()
    for again in ("first", "again"):
        with measured(f"score_coverage with its check, in this process, {again}"):
            job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("score_coverage")])


def _publish_selector(root: Root) -> str:
    """A selector that nothing is scored by; its fingerprint."""
    selector = Selector("model", "tokenizer", (Head(0, 0),), "uniform", 64, "bos", "float32")
    scores = np.zeros((1, 1))
    detection = HeadDetection(scores, scores, selector.heads, 1, 1, 1.0, 1.0)
    loss = AnswerLoss(1.0, 1.0)
    publish_selector(root, selector, Detection(detection, HeadEvidence(loss, loss, (loss,), (), 1)))
    return selector.fingerprint


if __name__ == "__main__":
    main()
