"""The whole project over a small corpus and the planted model: real files, real tables, real Dagster, in seconds."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from attninf_assets.definitions import definitions
from attninf_assets.orchestration.assets.checks import CHECKS
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets.orchestration.runs.selections import register_selections
from attninf_assets.selection.selections_file import read_selections
from attninf_assets.store.root import Root
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.planted_model import planted_model
from benchmarks.rigs.made_up_text import sentences, tiny_tokenizer

PROBES = {"retrieval_probes": {"config": {"n_probes": 6, "probe_tokens": 900}}}
SELECTOR = ["selector_model", "retrieval_probes", "retrieval_heads"]
OF_SELECTIONS = ["score_thresholds", "selected_subset"]
SELECTION = [*OF_SELECTIONS, "score_bands", "training_corpus"]
SHARDS = ["letters.a", "letters.b", "notes.first"]


@dataclass(frozen=True)
class Pipeline:
    """The project's definitions over one root, and an instance that remembers runs and partitions."""

    directory: Path
    lake: Lake
    instance: dg.DagsterInstance
    monkeypatch: pytest.MonkeyPatch

    def run(
        self,
        assets: list[str],
        key: str | None = None,
        *,
        to: str | None = None,
        config: Mapping[str, Any] | None = None,
        raise_on_error: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets, their checks included: one partition, or in one run all from `key` to `to`.

        Of assets that are partitioned by selection it is that of `paper`, unless another is named.
        """
        key = key or ("paper" if set(assets) & set(OF_SELECTIONS) else None)
        partitions = {"dagster/asset_partition_range_start": key or "", "dagster/asset_partition_range_end": to or ""}
        return (
            definitions()
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                instance=self.instance,
                asset_selection=[dg.AssetKey(name) for name in assets],
                partition_key=None if to else key,
                tags=partitions if to else None,
                run_config={"ops": {name: value for name, value in (config or {}).items() if name in assets}},
                raise_on_error=raise_on_error,
            )
        )

    def run_everything(self) -> None:
        """Materialize every asset once."""
        for key in SHARDS:
            self.run(["raw_corpus"], key)
        self.run(SELECTOR, config=PROBES)
        for key in SHARDS:
            self.run(["attention_influence_scores"], key)
        self.run(["document_features"], SHARDS[0], to=SHARDS[-1])
        self.run(["near_duplicates"])
        self.run(SELECTION)

    def define(self, **selections: Any) -> None:
        """Make this the selections file, and its selections known."""
        path = self.directory / "selections.yaml"
        path.write_text(yaml.safe_dump({"selections": selections}))
        self.monkeypatch.setenv("ATTNINF_SELECTIONS", str(path))
        register_selections(self.instance, read_selections(path))

    def rows(self, table: str, **where: str) -> pl.DataFrame:
        frame = pl.from_arrow(self.lake.read(table, where=where))
        assert isinstance(frame, pl.DataFrame)
        return frame

    def write_shard(self, key: str, texts: list[str]) -> None:
        """Put a source file of these texts in place of the shard's."""
        domain, name = key.split(".")
        path = self.directory / "source" / domain / (f"{name}.parquet" if domain == "letters" else f"{name}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = [f"{key}-{number}" for number in range(len(texts))]
        if domain == "letters":
            pl.DataFrame({"id": ids, "text": texts}).write_parquet(path)
        else:
            lines = [json.dumps({"key": i, "body": text}) for i, text in zip(ids, texts, strict=True)]
            path.write_text("\n".join(lines) + "\n")


def materialized(result: dg.ExecuteInProcessResult, asset: str) -> Mapping[str, Any]:
    """Metadata of the asset's materialization in a run."""
    (materialization,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in materialization.metadata.items()}


def backfilled(told: str) -> dict[str, list[str]]:
    """The partitions by asset for which `attninf repair` names a backfill."""
    found = {}
    for line in told.splitlines():
        words = line.partition("attninf backfill ")[2].split()
        if words:
            asset, keys = (words[1], words[2:]) if words[0] == "--asset" else ("attention_influence_scores", words)
            found[asset] = keys
    return found


def checked(pipeline: Pipeline, check: str, key: str | None = None) -> dg.AssetCheckEvaluation:
    """What one check says, run alone."""
    (definition,) = (c for c in CHECKS if c.check_key.name == check)
    resources = definitions().resources or {}
    job = dg.Definitions(
        asset_checks=[definition],
        jobs=[dg.define_asset_job("only_checks", selection=dg.AssetSelection.checks(definition.check_key))],
        resources=dict(resources),
    ).resolve_job_def("only_checks")
    result = job.execute_in_process(instance=pipeline.instance, tags={"dagster/partition": key} if key else None)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def build_pipeline(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A fresh pipeline under `directory`: three shards in two domains and the planted model, nothing materialized."""
    corpus = {
        "letters": {"files": "source/letters/*.parquet", "format": "parquet", "id_column": "id"},
        "notes": {"files": "source/notes/*.jsonl", "format": "jsonl", "text_column": "body", "id_column": "key"},
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "corpus.yaml").write_text(yaml.safe_dump({"domains": corpus}))
    model = directory / "model"
    planted_model().save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    monkeypatch.setenv("ATTNINF_ROOT", str(directory / "root"))
    monkeypatch.setenv("ATTNINF_CORPUS", str(directory / "corpus.yaml"))
    monkeypatch.setenv("ATTNINF_SELECTOR", str(model))
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions(CORPUS_SHARDS, SHARDS)
    register_selections(instance, read_selections(None))
    pipeline = Pipeline(directory, Lake(Root.at(directory / "root")), instance, monkeypatch)
    plain = sentences()
    for number, key in enumerate(SHARDS):
        texts = plain[number * 25 : (number + 1) * 25]
        repeated = [f"{text} {text}" if n % 5 == 0 else text for n, text in enumerate(texts)]
        pipeline.write_shard(key, repeated)
    return pipeline


@contextmanager
def put_back(pipeline: Pipeline, aside: Path) -> Iterator[Pipeline]:
    """The pipeline, whose storage may be broken in the block: it is kept `aside`, and put back afterwards."""
    root = Path(pipeline.lake.root.uri)
    shutil.copytree(root, aside)
    yield pipeline
    shutil.rmtree(root)
    shutil.copytree(aside, root)
