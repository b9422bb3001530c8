"""Attention influence scores, shard by shard."""

import hashlib
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.influence.selector import Selector
from attninf_assets.orchestration.assets.corpus import raw_corpus
from attninf_assets.orchestration.assets.partition_checks import SCORE_CHECKS
from attninf_assets.orchestration.assets.selector import retrieval_heads
from attninf_assets.orchestration.connections.resources import CorpusResource, CostResource, LakeResource
from attninf_assets.orchestration.display.metadata import column_schema, quantiles, records, reporter
from attninf_assets.orchestration.display.plots import score_histogram
from attninf_assets.orchestration.runs.partition_runs import PartitionEvents, each_partition, every_partition_concerned
from attninf_assets.orchestration.runs.partitions import GPU_POOL, corpus_shards
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.scores.update import PartitionScores, update_partition_scores
from attninf_assets.selector.model_files import local_directory
from attninf_assets.selector.stored import current_selector

if TYPE_CHECKING:
    from attninf_assets.influence.engine import Engine

_ROWS_AT_ONCE = 65_536


@dg.asset(
    deps=[raw_corpus, retrieval_heads],
    partitions_def=corpus_shards,
    group_name="scores",
    kinds={"deltalake", "pytorch"},
    pool=GPU_POOL,
    metadata={**column_schema("scores"), "dagster/table_name": "scores"},
)
@transient_faults_retried
def attention_influence_scores(
    context: dg.AssetExecutionContext, corpus: CorpusResource, lake: LakeResource, cost: CostResource
) -> PartitionEvents:
    """How much each document's loss rises when the retrieval heads are masked.

    The attention influence score is (loss_reference - loss_base) / loss_base. Only documents whose text or whose
    selector changed are scored; a partition that is current is left as it is. An interrupted run is continued."""
    tables = lake.tables()

    def score(key: str) -> dg.MaterializeResult:
        selector = current_selector(tables.root).selector
        scores = update_partition_scores(
            tables,
            corpus.shard(key),
            selector,
            load=lambda: _engine(selector, lake=lake, cost=cost),
            storage_options=corpus.source_options(),
            on_progress=reporter(context.log, key),
        )
        context.log.info(f"{key}: {_story(scores)}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(_content_digest(scores.table, selector.fingerprint)),
            metadata={
                "selector_fingerprint": selector.fingerprint,
                "dagster/uri": tables.root.table_uri("scores"),
                **_work(scores, cost),
                **_distribution(scores.table),
            },
        )

    yield from each_partition(context, score, lake=lake, checks=SCORE_CHECKS)


def _engine(selector: Selector, *, lake: LakeResource, cost: CostResource) -> "Engine":
    from attninf_assets.influence.engine import load_engine
    from attninf_assets.influence.runtime.devices import choose_device, claim_device

    root = lake.storage_root()
    with every_partition_concerned():
        cost.require_approval(root, selector.fingerprint)
        claim_device()
        return load_engine(
            local_directory(root, f"selectors/{selector.model_digest}", cache=lake.model_cache()),
            numeric_class=selector.numeric_class,
            max_tokens=selector.max_tokens,
            device=choose_device(),
            memory=lake.budget_memory(),
        )


def _work(scores: PartitionScores, cost: CostResource) -> dict[str, float]:
    """What the partition holds and what this run did for it, in numbers: Dagster plots them over the partitions."""
    hours = scores.seconds / 3600
    return {
        "dagster/partition_row_count": len(scores.table),
        "documents_scored": scores.n_scored,
        "documents_resumed": scores.n_resumed,
        "documents_reused": scores.n_reused,
        "tokens": int(pc.sum(scores.table["n_tokens"]).as_py() or 0),
        "tokens_scored": scores.tokens_scored,
        "seconds_scoring": round(scores.seconds, 3),
        "tokens_per_second": round(scores.tokens_scored / scores.seconds, 1) if scores.seconds else 0.0,
        "device_hours": hours,
        "money": hours * cost.price_per_device_hour,
    }


def _story(scores: PartitionScores) -> str:
    if scores.was_current:
        return f"all {scores.n_reused:,} scores are current: nothing to do"
    return (
        f"{scores.n_scored:,} documents scored ({scores.tokens_scored:,} tokens in {scores.seconds:.1f} s), "
        f"{scores.n_resumed:,} taken over from an interrupted run, {scores.n_reused:,} already current"
    )


def _content_digest(table: pa.Table, fingerprint: str) -> str:
    """Changes when any document's text, the set of documents or the selector does, and never otherwise."""
    digest = hashlib.sha256(fingerprint.encode())
    texts = table.select(["doc_id", "text_sha256"])
    by_id = pc.sort_indices(texts, [("doc_id", "ascending")])
    for begin in range(0, len(by_id), _ROWS_AT_ONCE):
        rows = texts.take(by_id.slice(begin, _ROWS_AT_ONCE)).combine_chunks()
        for chunk in pc.binary_join_element_wise("", *rows.columns, "\0").chunks:
            digest.update("".join(chunk.to_pylist()).encode())
    return digest.hexdigest()


def _distribution(table: pa.Table) -> dict[str, dg.MetadataValue]:
    scores = table["score"].to_numpy()
    ranked = pc.sort_indices(table, [("score", "descending"), ("doc_id", "descending")])  # what is not finite last
    ranked = ranked.slice(0, int(np.isfinite(scores).sum()))
    ends = [*ranked.slice(0, 5).to_pylist(), *ranked.slice(max(5, len(ranked) - 5)).to_pylist()]
    shown = pa.concat_tables([table.slice(0, 0), *(table.slice(row, 1) for row in ends)])
    shown_rows = [
        {
            "doc_id": row["doc_id"],
            "n_tokens": row["n_tokens"],
            **{name: round(row[name], 4) for name in ("loss_base", "loss_reference", "score")},
        }
        for row in shown.to_pylist()
    ]
    return {
        "scores": quantiles(scores),
        "loss_base": quantiles(table["loss_base"].to_numpy()),
        "histogram": score_histogram(np.asarray(scores, dtype=float)),
        "highest_and_lowest": records(shown_rows),
    }
