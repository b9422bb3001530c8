"""The program behind `make demo`: materializes every asset once through Dagster, then prints a summary.

It runs on the sample corpus with the sample selector, unless the settings name others. Run again, it scores nothing.
"""

import logging
import sys
import time
from collections.abc import Sequence

import dagster as dg

from attninf_assets.definitions import definitions
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.orchestration.runs.liveness import end_dead_runs, living_run
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets.selector.stored import current_detection
from attninf_assets.store.query import connect

_SELECTOR = ["selector_model", "retrieval_probes", "retrieval_heads"]
_SELECTION = ["score_thresholds", "selected_subset", "training_corpus"]


def _story_logger(_: dg.InitLoggerContext) -> logging.Logger:
    """A console logger for what assets say and for warnings, without Dagster's own events."""
    logger = logging.Logger("attninf_demo", level=logging.INFO)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Story())
    logger.addHandler(handler)
    return logger


class _Story(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message: str = getattr(record, "dagster_meta", {}).get("orig_message") or record.getMessage()
        return f"    {'' if record.levelno < logging.WARNING else record.levelname + ': '}{message}"


def main() -> None:
    """Materialize every asset and print the summary. Raises what a failing asset raised."""
    started = time.monotonic()
    project = definitions()
    resources = project.resources or {}
    corpus, lake = resources["corpus"], resources["lake"]
    assert isinstance(corpus, CorpusResource)
    assert isinstance(lake, LakeResource)
    job = dg.Definitions.merge(
        project, dg.Definitions(loggers={"story": dg.LoggerDefinition(_story_logger)})
    ).resolve_implicit_global_asset_job_def()
    scored = 0
    with dg.DagsterInstance.get() as instance:

        def materialize(assets: Sequence[str], partition_key: str | None = None) -> dg.ExecuteInProcessResult:
            with living_run(instance) as run_id:
                return job.execute_in_process(
                    instance=instance,
                    asset_selection=[dg.AssetKey(name) for name in assets],
                    partition_key=partition_key,
                    run_config={"loggers": {"story": {}}},
                    run_id=run_id,
                )

        end_dead_runs(instance)
        _say("corpus: indexing every shard")
        sources = corpus.open()
        found = sources.shards()
        if empty := sources.domains_without(found):
            globs = ", ".join(f"domains.{name}.files: {source.files.written!r}" for name, source in empty.items())
            raise ValueError(f"{sources.config.path}: nothing matches {globs}")
        shards = [shard.key for shard in found]
        instance.add_dynamic_partitions(CORPUS_SHARDS, shards)
        for key in shards:
            materialize(["raw_corpus"], key)
        _say("selector: pinning the model, building probes, detecting the retrieval heads")
        materialize(_SELECTOR)
        for number, key in enumerate(shards, start=1):
            _say(f"scores: shard {number} of {len(shards)}, {key}")
            result = materialize(["attention_influence_scores"], key)
            (done,) = result.asset_materializations_for_node("attention_influence_scores")
            n_scored = done.metadata["documents_scored"].value
            assert isinstance(n_scored, int)
            scored += n_scored
        _say("selection and mix")
        materialize(_SELECTION)
    _summary(lake, scored=scored, seconds=time.monotonic() - started)


def _say(line: str) -> None:
    print(f"\n{line}", flush=True)


def _summary(lake: LakeResource, *, scored: int, seconds: float) -> None:
    tables = lake.tables()
    found = current_detection(tables.root)
    with connect(tables, "thresholds") as connection:
        rows = connection.execute(
            "SELECT domain, n_documents, tokens_total, threshold_score, n_selected, tokens_selected "
            "FROM thresholds ORDER BY domain"
        ).fetchall()
    width = max(len(row[0]) for row in rows)
    print(f"\n{'domain':<{width}}  documents    tokens  threshold  selected  selected tokens")
    for domain, documents, tokens, threshold, *kept in rows:
        print(f"{domain:<{width}}  {documents:>9,}  {tokens:>8,}  {threshold:>9.4f}  {kept[0]:>8,}  {kept[1]:>15,}")
    evidence = found.evidence
    random_loss = evidence.base.loss + evidence.random_effect
    heads = ", ".join(map(str, found.detection.retrieval_heads))
    print(
        f"\nretrieval heads: {heads}\n"
        f"  answer loss on the probes: base model {evidence.base.loss:.2f}, retrieval heads masked "
        f"{evidence.reference.loss:.2f}, random heads masked {random_loss:.2f} (median)\n"
        f"  answer tokens right: base model {evidence.base.token_accuracy:.0%}, "
        f"retrieval heads masked {evidence.reference.token_accuracy:.0%}\n"
        f"training corpus: {tables.root.uri}/training_corpus (manifest.json names its files)\n"
        f"{f'{scored:,} documents scored' if scored else 'every score was current: nothing rescored'}"
        f" in {seconds:.0f} s; look at it all with `make ui` at http://127.0.0.1:3000"
    )


if __name__ == "__main__":
    main()
