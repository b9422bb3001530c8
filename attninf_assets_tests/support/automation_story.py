"""Ticks of the automation over the project's own definitions, and the events between them."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import dagster as dg
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.events import StepMaterializationData

from attninf_assets.definitions import definitions
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS, SELECTIONS

SCORES = "attention_influence_scores"
PREVIEW = "rescoring_preview"
DEFINITIONS = "selection_definitions"
SELECTION = ("score_thresholds", "selected_subset")
MIX = "training_corpus"
DOWNSTREAM = {*SELECTION, MIX}


@dataclass
class Story:
    """One automation cursor; a tick is half a minute after the last unless a time is given."""

    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)
    now: datetime.datetime = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)
    _cursor: AssetDaemonCursor | None = None

    @cached_property
    def definitions(self) -> dg.Definitions:
        """The project's, as the settings are when the story begins to tick."""
        return definitions()

    def shards(self, *keys: str, version: str = "1") -> None:
        """Shards land and are indexed."""
        self.instance.add_dynamic_partitions(CORPUS_SHARDS, list(keys))
        for key in keys:
            self.made("raw_corpus", key, version=version)

    def selections(self, **versions: str) -> None:
        """Selections are registered, and their definitions reported in these versions."""
        self.instance.add_dynamic_partitions(SELECTIONS, list(versions))
        for name, version in versions.items():
            self.made(DEFINITIONS, name, version=version)

    def made(self, asset: str, *keys: str, version: str | None = None) -> None:
        """The asset, or these partitions of it, are materialized."""
        tags = {} if version is None else {"dagster/data_version": version}
        for key in keys or (None,):
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(dg.AssetKey(asset), partition=key, tags=tags)
            )

    def selected(self, *names: str, version: str | None = None) -> None:
        """One run for each of these selections makes its thresholds and its documents."""
        for name in names:
            run = self.begin(SELECTION[0], name, then=SELECTION[1:])
            for asset in SELECTION:
                self.make(run, asset, name, version=version)
            self.end(run)

    def tick(
        self, now: datetime.datetime | None = None, *, watching: Iterable[str] = (PREVIEW, SCORES, *DOWNSTREAM)
    ) -> dict[str, set[str]]:
        """What the automation requests: the partitions of each asset watched, `{""}` for an unpartitioned one."""
        self.now = now or self.now + datetime.timedelta(seconds=30)
        result = dg.evaluate_automation_conditions(
            self.definitions, instance=self.instance, cursor=self._cursor, evaluation_time=self.now
        )
        self._cursor = result.cursor
        requested = {name: result.get_requested_partitions(dg.AssetKey(name)) for name in watching}
        return {name: {key or "" for key in keys} for name, keys in requested.items() if keys}

    def begin(
        self, asset: str, key: str | None = None, *, to: str | None = None, then: Iterable[str] = ()
    ) -> dg.DagsterRun:
        """A run that makes this partition, or all from `key` to `to`, and `then` more assets, has started."""
        assets = frozenset(map(dg.AssetKey, [asset, *then]))
        job = self.definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=assets)
        ends = {"dagster/asset_partition_range_start": key or "", "dagster/asset_partition_range_end": to or ""}
        return self.instance.create_run_for_job(
            job,
            asset_selection=assets,
            status=dg.DagsterRunStatus.STARTED,
            tags=ends if to else {"dagster/partition": key} if key else {},
        )

    def make(self, run: dg.DagsterRun, asset: str, key: str | None = None, *, version: str | None) -> None:
        """The run makes the partition and goes on."""
        tags = {} if version is None else {"dagster/data_version": version}
        made = dg.AssetMaterialization(dg.AssetKey(asset), partition=key, tags=tags)
        step = dg.DagsterEvent(
            "ASSET_MATERIALIZATION",
            job_name=run.job_name,
            event_specific_data=StepMaterializationData(made),
        )
        self.instance.report_dagster_event(step, run.run_id)

    def end(self, run: dg.DagsterRun) -> None:
        """The run ends well."""
        self.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_SUCCESS", job_name=run.job_name), run.run_id)

    def land(self, run: dg.DagsterRun, asset: str, key: str | None = None, *, version: str) -> None:
        """The run makes the partition and ends well."""
        self.make(run, asset, key, version=version)
        self.end(run)

    def fail(self, run: dg.DagsterRun) -> None:
        """The run ends without having made what it has not made by now."""
        self.instance.report_run_failed(run)

    def settled(self, heads: str = "heads 1") -> "Story":
        """Three shards in two domains, scored and selected; the automation has nothing left to ask for."""
        keys = ["letters.a", "letters.b", "notes.first"]
        self.shards(*keys)
        self.selections(paper="paper 1")
        self.made("retrieval_heads", version=heads)
        self.made(SCORES, *keys, version=heads)
        self.selected("paper", version=heads)
        self.made(MIX, version=heads)
        self.tick()
        return self
