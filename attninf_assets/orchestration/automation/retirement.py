"""The job `retire_shards`: it takes shards whose source file is gone for good out of the tables."""

from functools import partial

import dagster as dg
from pydantic import Field

from attninf_assets.corpus.stored_index import indexed_from
from attninf_assets.orchestration.assets.corpus import index_what_waited, raw_corpus
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.orchestration.runs.partition_runs import partition_event
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets.store.retirement import retire_shard, stored_shards, to_retire


class RetirementConfig(dg.Config):
    """Run configuration of `retire_shards`: the shards to take out."""

    shards: list[str] = Field(
        default=[],
        description="Partition keys; none: every shard whose file the corpus file's globs no longer match.",
    )


@dg.op
def retire(
    context: dg.OpExecutionContext, config: RetirementConfig, corpus: CorpusResource, lake: LakeResource
) -> None:
    """Takes the shards' rows out of scores, features, documents and quarantine, and deletes their partitions.

    Shards that refused documents which a retired one had are indexed again. Raises `ValueError`, before anything is
    deleted, for a shard whose file is still there, or that nobody knows.
    """
    tables, sources = lake.tables(), corpus.open()
    partitions = set(context.instance.get_dynamic_partitions(CORPUS_SHARDS))
    known = partitions | {f"{domain}.{name}" for domain, name in stored_shards(tables)}
    chosen = to_retire(
        config.shards,
        known=known,
        landed={shard.key for shard in sources.shards()},
        domains=set(sources.config.domains),
    )
    for key in chosen:
        domain, _, name = key.partition(".")
        taken = retire_shard(tables, domain=domain, shard=name)
        context.log.info(
            f"retired {key}: {taken.documents:,} documents, {taken.scores:,} scores, "
            f"{taken.quarantine:,} quarantined rows"
        )
    for key in chosen:
        made = index_what_waited(
            context.log,
            tables,
            key,
            find=partial(sources.find, indexed_from=partial(indexed_from, tables)),
            storage_options=sources.storage_options,
        )
        for other, result in made.items():
            context.log_event(
                partition_event(context.instance, raw_corpus.get_asset_spec(), other, result, run_id=context.run_id)
            )
    for key in sorted(partitions.intersection(chosen)):  # last: a run that is repeated still knows its shards
        context.instance.delete_dynamic_partition(CORPUS_SHARDS, key)
    context.log.info(
        f"{len(chosen):,} shards retired; materialize score_thresholds, selected_subset and training_corpus again"
        if chosen
        else "nothing to retire: every shard's file is there"
    )


@dg.job(name="retire_shards")
def retire_shards() -> None:
    """Take shards out of the tables whose source file is gone for good."""
    retire()
