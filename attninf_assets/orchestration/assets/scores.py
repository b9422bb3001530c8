"""The asset `attention_influence_scores`: the scores of the corpus, shard by shard."""

from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pyarrow as pa

from attninf_assets.corpus.stored_index import indexed_from
from attninf_assets.influence.selector import SCORING_VERSION, Selector
from attninf_assets.orchestration.assets.corpus import raw_corpus
from attninf_assets.orchestration.assets.partition_checks import SCORE_CHECKS
from attninf_assets.orchestration.assets.reading import shard_to_read
from attninf_assets.orchestration.assets.recomputation import recomputed
from attninf_assets.orchestration.assets.selector import retrieval_heads
from attninf_assets.orchestration.connections.engine import load_selector_engine
from attninf_assets.orchestration.connections.resources import CorpusResource, CostResource, LakeResource
from attninf_assets.orchestration.display.catalog import DELTA_TABLE, DEVICE_TIME, OWNERS, table_metadata
from attninf_assets.orchestration.display.metadata import quantiles, records, reporter, rounded
from attninf_assets.orchestration.display.plots import score_histogram
from attninf_assets.orchestration.runs.partition_runs import (
    PartitionEvents,
    each_partition,
    every_partition_concerned,
    numbered,
)
from attninf_assets.orchestration.runs.partitions import GPU_POOL, corpus_shards
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.scores.cost import cost_of
from attninf_assets.scores.ranking import highest_and_lowest
from attninf_assets.scores.update import PartitionScores, content_digest, update_partition_scores
from attninf_assets.selection.last_cut import Cut, last_cut
from attninf_assets.selector.stored import current_selector

if TYPE_CHECKING:
    from attninf_assets.influence.engine import Engine


@dg.asset(
    deps=[raw_corpus, retrieval_heads],
    partitions_def=corpus_shards,
    group_name="scores",
    owners=OWNERS,
    tags={**DELTA_TABLE, **DEVICE_TIME},
    kinds={"deltalake", "pytorch"},
    code_version=str(SCORING_VERSION),
    pool=GPU_POOL,
    metadata=table_metadata("scores"),
)
@transient_faults_retried
def attention_influence_scores(
    context: dg.AssetExecutionContext, corpus: CorpusResource, lake: LakeResource, cost: CostResource
) -> PartitionEvents:
    """A row for each document: the losses of base and reference model, nats per token, and the score they make.

    The attention influence score, (loss_reference - loss_base) / loss_base, is how much a document's loss rises when
    the retrieval heads are masked; documents where it is high are taken for reasoning-intensive (arXiv 2505.07293).
    Only documents whose text or whose selector changed are scored; a partition that is current is left as it is. An
    interrupted run is continued.
    """
    tables, sources = lake.tables(), corpus.open()

    def score(key: str) -> dg.MaterializeResult:
        selector = current_selector(tables.root)
        shard = sources.find(key, indexed_from=partial(indexed_from, tables)).shard
        load = partial(_engine, selector, lake=lake, cost=cost)
        scores = update_partition_scores(
            tables,
            shard,
            selector,
            load=load,
            storage_options=sources.storage_options,
            on_progress=reporter(context.log, numbered(context, key)),
        )
        context.log.info(f"{numbered(context, key)}: {_story(scores)}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(content_digest(scores.table, selector_fingerprint=selector.fingerprint)),
            metadata={
                **_distribution(scores.table, cut=last_cut(tables, shard.domain, selector.fingerprint)),
                **_work(scores, cost),
                "documents_to_read": shard_to_read(tables, shard, sources, selector_fingerprint=selector.fingerprint),
                "dagster/uri": tables.root.table_uri("scores"),
                "selector_fingerprint": selector.fingerprint,
            },
            check_results=recomputed(
                scores, tables, shard, selector, load=load, storage_options=sources.storage_options
            ),
        )

    yield from each_partition(context, score, lake=lake, checks=SCORE_CHECKS)


def _engine(selector: Selector, *, lake: LakeResource, cost: CostResource) -> "Engine":
    with every_partition_concerned():
        cost.require_approval(lake.storage_root(), selector.fingerprint)
        return load_selector_engine(lake, selector)


def _work(scores: PartitionScores, cost: CostResource) -> dict[str, float]:
    """What the partition holds and what this run did for it, in numbers: Dagster plots them over the partitions.

    Where no document was scored nothing was measured: a zero would stand in the plots in place of what scoring took."""
    done: dict[str, float] = {
        "dagster/partition_row_count": len(scores.table),
        "documents_scored": scores.n_scored,
        "documents_resumed": scores.n_resumed,
        "documents_reused": scores.n_reused,
        "tokens": scores.n_tokens,
    }
    if not scores.n_scored:
        return done
    spent = cost_of(scores.tokens_scored, scores.seconds, price_per_device_hour=cost.price_per_device_hour)
    return done | {
        "tokens_scored": scores.tokens_scored,
        "seconds_scoring": round(scores.seconds, 3),
        "tokens_per_second": round(spent.tokens_per_second, 1),
        "device_hours": rounded(spent.device_hours),
        "money": rounded(spent.money),
    }


def _story(scores: PartitionScores) -> str:
    if scores.was_current:
        return f"all {scores.n_reused:,} scores are current: nothing to do"
    return (
        f"{scores.n_scored:,} documents scored ({scores.tokens_scored:,} tokens in {scores.seconds:.1f} s), "
        f"{scores.n_resumed:,} taken over from an interrupted run, {scores.n_reused:,} already current"
    )


def _distribution(table: pa.Table, *, cut: Cut | None) -> dict[str, Any]:
    """The shard's scores: how good it is, in numbers that Dagster plots over the partitions, and at both ends.

    `cut` is the domain's by the last thresholds, if these are of scores by this selector.
    """
    scores = np.asarray(table["score"].to_numpy(), dtype=float)
    finite = scores[np.isfinite(scores)]
    average = {"mean_score": rounded(finite.mean()), "median_score": rounded(np.median(finite))} if len(finite) else {}
    highest, lowest = highest_and_lowest(table)
    return {
        "histogram": score_histogram(
            scores, tokens=sum(table["n_tokens"].to_pylist()), cut=None if cut is None else cut.score
        ),
        "highest": records([_shown(row) for row in highest]),
        "lowest": records([_shown(row) for row in lowest]),
        **average,
        **({} if cut is None or not len(table) else {"share_selected": rounded(cut.share_of(table))}),
        "without_score": len(scores) - len(finite),
        "scores": quantiles(scores),
        "loss_base": quantiles(table["loss_base"].to_numpy()),
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """The columns that say something first, the id, which may be long, last."""
    losses = {name: rounded(row[name]) for name in ("score", "loss_base", "loss_reference")}
    return {**losses, "n_tokens": row["n_tokens"], "doc_id": row["doc_id"]}
