"""The job that takes out shards whose source file is gone for good."""

from collections.abc import Sequence, Set

import dagster as dg
from pydantic import Field

from attninf_assets.partitions import CORPUS_SHARDS
from attninf_assets.resources import CorpusResource, LakeResource
from attninf_assets.store.retirement import retire_shard, stored_shards


class RetirementConfig(dg.Config):
    """Which shards to retire."""

    shards: list[str] = Field(
        default=[],
        description="Partition keys; none: every shard whose file the corpus file's globs no longer match.",
    )


@dg.op
def retire(
    context: dg.OpExecutionContext, config: RetirementConfig, corpus: CorpusResource, lake: LakeResource
) -> None:
    """Takes the shards' rows out of scores, documents and quarantine, and deletes their partitions.

    Refuses, before anything is deleted, a shard whose file is still there."""
    tables = lake.lake()
    partitions = set(context.instance.get_dynamic_partitions(CORPUS_SHARDS))
    known = partitions | {f"{domain}.{name}" for domain, name in stored_shards(tables)}
    chosen = to_retire(
        config.shards,
        known=known,
        landed={shard.key for shard in corpus.shards()},
        domains={source.domain for source in corpus.config().domains},
    )
    for key in chosen:
        domain, _, name = key.partition(".")
        taken = retire_shard(tables, domain=domain, shard=name)
        context.log.info(
            f"retired {key}: {taken.documents:,} documents, {taken.scores:,} scores, "
            f"{taken.quarantine:,} quarantined rows"
        )
    for key in sorted(partitions.intersection(chosen)):  # last: a run that is repeated still knows its shards
        context.instance.delete_dynamic_partition(CORPUS_SHARDS, key)
    context.log.info(
        f"{len(chosen):,} shards retired; materialize score_thresholds, selected_subset and training_corpus again"
        if chosen
        else "nothing to retire: every shard's file is there"
    )


def to_retire(wanted: Sequence[str], *, known: Set[str], landed: Set[str], domains: Set[str]) -> list[str]:
    """The keys to retire: those `wanted`, or without any every one `known` that is not `landed`; sorted.

    `known` are stored or have a partition, `landed` have their file, `domains` are the corpus file's. Raises
    `ValueError` naming the key where a wanted one is landed or unknown, and naming the domain where none is wanted and
    no file at all of a domain was found: a folder that is away for the moment looks the same.
    """
    for key in wanted:
        if key in landed:
            raise ValueError(f"shard {key}: its file is still there; move or delete the file before retiring the shard")
        if key not in known:
            raise ValueError(f"shard {key}: nothing of it is stored and it has no partition")
    if wanted:
        return sorted(set(wanted))
    gone = sorted(known - landed)
    emptied = domains - {key.partition(".")[0] for key in landed}
    for key in gone:
        if (domain := key.partition(".")[0]) in emptied:
            raise ValueError(
                f"shard {key}: no file of domain {domain!r} was found, is its folder away? If they are gone for good, "
                "name the shards to retire, or take the domain out of the corpus file"
            )
    return gone


@dg.job(name="retire_shards")
def retire_shards() -> None:
    """Take shards out of the tables whose source file is gone for good."""
    retire()
