"""Every asset materialized once, in this process, stage by stage: what `make demo` and `attninf run` do.

The runs are in Dagster's instance like any other, so the UI shows them.
"""

import json
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from attninf_assets.orchestration.connections.resources import CorpusResource
from attninf_assets.orchestration.runs.liveness import end_dead_runs, living_run
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS

__all__ = ["Told", "WholeRun", "instance_of_home", "launchpad_fields", "materialize_everything", "read_run_config"]

_SELECTOR = ["selector_model", "retrieval_probes", "retrieval_heads"]
_SELECTION = ["score_thresholds", "selected_subset", "training_corpus"]
_FEATURES = ["near_duplicates", "score_confounders"]
_ASSETS = [
    "raw_corpus",
    *_SELECTOR,
    "rescoring_preview",
    "attention_influence_scores",
    "document_features",
    *_FEATURES,
    *_SELECTION,
]
_INTERRUPTS = (dg.DagsterExecutionInterruptedError.__name__, KeyboardInterrupt.__name__)

RunConfig = Mapping[str, Any]
Told = Callable[[str], None]


@dataclass
class WholeRun:
    """What came of it."""

    n_scored: int = 0  # documents
    selected: bool = False  # whether it came to a training corpus
    failed: dict[str, str] = field(default_factory=dict)  # why, by what failed: `<asset> <partition>`, or the asset


def materialize_everything(
    project: dg.Definitions, instance: dg.DagsterInstance, *, run_config: RunConfig | None = None, say: Told
) -> WholeRun:
    """Index every shard, build the selector, preview the cost, score every shard, compute features, select and mix.

    `run_config` is Dagster's, of any of these assets; each run gets the part of it that concerns its assets. A shard
    that fails is passed over, and told of in the end; where a whole stage fails the ones after it are not begun.
    Raises ValueError for a run configuration that is none, or a glob that nothing matches, before anything is done, and
    KeyboardInterrupt where it is interrupted.
    """
    resources = project.resources or {}
    corpus = resources["corpus"]
    assert isinstance(corpus, CorpusResource)
    run_config = _checked(project, run_config or {})
    job = dg.Definitions.merge(
        project, dg.Definitions(loggers={"story": dg.LoggerDefinition(_story_logger)})
    ).resolve_implicit_global_asset_job_def()
    came = WholeRun()

    def materialize(assets: Sequence[str], partition_key: str | None = None) -> dg.ExecuteInProcessResult:
        with living_run(instance) as run_id:
            result = job.execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey(name) for name in assets],
                partition_key=partition_key,
                run_config={**_of(run_config, assets), "loggers": {"story": {}}},
                run_id=run_id,
                raise_on_error=False,
            )
        failures = [event for event in result.all_events if event.is_failure]
        if any(map(_was_interrupted, failures)):  # Dagster makes a failure of it, after which the next run would begin
            raise KeyboardInterrupt
        of_steps = [event for event in failures if event.is_step_failure]
        for event in of_steps or failures:  # a run can fail between its steps
            name = event.step_key or ", ".join(assets)
            came.failed[name if partition_key is None else f"{name} {partition_key}"] = _reason(event)
        return result

    end_dead_runs(instance)
    say("corpus: indexing every shard")
    sources = corpus.open()
    found = sources.shards()
    sources.require_files(found)
    shards = [shard.key for shard in found]
    instance.add_dynamic_partitions(CORPUS_SHARDS, shards)
    indexed = [key for key in shards if materialize(["raw_corpus"], key).success]
    say("selector: pinning the model, building probes, detecting the retrieval heads")
    if not indexed or not materialize(_SELECTOR).success or not materialize(["rescoring_preview"]).success:
        return came
    for number, key in enumerate(indexed, start=1):
        say(f"scores: shard {number} of {len(indexed)}, {key}")
        result = materialize(["attention_influence_scores"], key)
        for done in result.asset_materializations_for_node("attention_influence_scores"):
            n_scored = done.metadata["documents_scored"].value
            assert isinstance(n_scored, int)
            came.n_scored += n_scored
    say("features: repetition, boilerplate, duplicates of every shard")
    for key in indexed:
        materialize(["document_features"], key)
    materialize(_FEATURES)
    say("selection and mix")
    came.selected = materialize(_SELECTION).success
    materialize(["score_coverage"])
    return came


def _checked(project: dg.Definitions, run_config: RunConfig) -> dict[str, Any]:
    """The run configuration, whole. Raises ValueError naming what in it no asset of the run has, or has otherwise."""
    job = project.resolve_implicit_global_asset_job_def()
    if unknown := sorted(set(run_config) - {"ops"}):
        raise ValueError(f"{unknown[0]}: unknown; a run configuration has `ops: {{<asset>: {{config: …}}}}`")
    ops = run_config.get("ops") or {}
    if not isinstance(ops, dict):
        raise ValueError(f"ops: {ops!r} is no mapping of assets to their configuration")
    if unknown := sorted(map(str, set(ops) - set(_ASSETS))):
        raise ValueError(f"ops.{unknown[0]}: no asset of this run; it has {', '.join(_ASSETS)}")
    try:
        dg.validate_run_config(job, dict(run_config))
    except dg.DagsterInvalidConfigError as error:
        raise ValueError("; ".join(one.message for one in error.errors)) from None
    return {"ops": ops}


def instance_of_home() -> dg.DagsterInstance:
    """The instance of DAGSTER_HOME. Raises ValueError where that is not set, or is no directory."""
    try:
        return dg.DagsterInstance.get()
    except dg.DagsterError as error:
        given = os.environ.get("DAGSTER_HOME")
        said = f"is {given!r}, no absolute path of a directory" if given else "is not set"
        raise ValueError(f"DAGSTER_HOME {said}: set it to the directory where the run history is kept") from error


def read_run_config(file: Path) -> RunConfig:
    """The run configuration in a YAML file. Raises ValueError naming the file where it is none, OSError as usual."""
    try:
        written = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(written, dict):
        raise ValueError(f"{file}: {written!r} is no run configuration: `ops: {{<asset>: {{config: …}}}}`")
    return written


def launchpad_fields(project: dg.Definitions) -> str:
    """A run configuration in YAML with every field of every asset of the run, at its default, described."""
    job = project.resolve_implicit_global_asset_job_def()
    lines = ["ops:"]
    for name in _ASSETS:
        schema = job.graph.node_named(name).definition.config_schema
        fields = {} if schema is None else getattr(schema.config_type, "fields", {})
        if fields:
            lines += [f"  {name}:", "    config:"]
        for field_name, field_ in fields.items():
            written = json.dumps(field_.default_value)
            about = textwrap.wrap(field_.description or "", width=100)
            lines += ["", *(f"      # {line}" for line in about), f"      {field_name}: {written}"]
    return "\n".join(lines).replace("config:\n\n", "config:\n") + "\n"


def _of(run_config: RunConfig, assets: Sequence[str]) -> dict[str, Any]:
    return {"ops": {name: config for name, config in run_config["ops"].items() if name in assets}}


def _was_interrupted(failure: dg.DagsterEvent) -> bool:
    error = _error(failure)
    return error is not None and error.cls_name in _INTERRUPTS


def _error(failure: dg.DagsterEvent) -> Any:
    return getattr(failure.event_specific_data, "error", None)  # of a step, or of the run as a whole


def _reason(failure: dg.DagsterEvent) -> str:
    """The failure's own words or the innermost cause's message, in one line."""
    told = failure.step_failure_data.user_failure_data if failure.is_step_failure else None
    if told is not None and told.description:
        return " ".join(told.description.split())
    error = _error(failure)
    while error is not None and error.cause is not None:
        error = error.cause
    return "" if error is None else " ".join(error.message.split())


def _story_logger(_: dg.InitLoggerContext) -> logging.Logger:
    """A console logger for what assets say and for warnings, without Dagster's own events."""
    logger = logging.Logger("attninf_story", level=logging.INFO)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Story())
    logger.addHandler(handler)
    return logger


class _Story(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message: str = getattr(record, "dagster_meta", {}).get("orig_message") or record.getMessage()
        return f"    {'' if record.levelno < logging.WARNING else record.levelname + ': '}{message}"
