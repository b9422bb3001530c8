"""The asset `raw_corpus`: the index of the corpus, shard by shard."""

from collections import Counter
from collections.abc import Callable
from functools import partial

import dagster as dg

from attninf_assets.corpus.documents import LandedShard
from attninf_assets.corpus.stored_index import StoredIndex, index_and_store, index_waiting, indexed_from
from attninf_assets.orchestration.assets.partition_checks import CORPUS_CHECKS
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.orchestration.display.catalog import DELTA_TABLE, OWNERS, table_metadata
from attninf_assets.orchestration.display.metadata import as_json, quantiles
from attninf_assets.orchestration.display.text import quoted
from attninf_assets.orchestration.runs.partition_runs import PartitionEvents, each_partition, numbered
from attninf_assets.orchestration.runs.partitions import corpus_shards
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.store.filesystems import StorageOptions
from attninf_assets.store.tables import Lake

SOURCE_VERSION = "source_version"  # metadata: the file as it was listed just before it was read


@dg.asset(
    deps=["source_files"],
    partitions_def=corpus_shards,
    group_name="corpus",
    owners=OWNERS,
    tags=DELTA_TABLE,
    kinds={"deltalake", "parquet"},
    code_version="1",
    metadata=table_metadata("documents"),
)
@transient_faults_retried
def raw_corpus(context: dg.AssetExecutionContext, corpus: CorpusResource, lake: LakeResource) -> PartitionEvents:
    """The index of the corpus: a row in `tables/documents` for each document of the shard, without its text.

    It says which documents there are to score, where the text of each lies, and by a hash whether that text is still
    the one that was scored. Rows of the source file that cannot be documents are in `tables/quarantine` with the
    reason.
    """
    tables, sources = lake.tables(), corpus.open()
    find = partial(sources.find, indexed_from=partial(indexed_from, tables))

    def index(key: str) -> dg.MaterializeResult:
        stored = index_and_store(tables, find(key), storage_options=sources.storage_options)
        indexed = stored.indexed
        context.log.info(
            f"{numbered(context, key)}: {indexed.shard.shown}: {indexed.n_documents:,} documents "
            f"{'indexed' if stored.changed else 'found unchanged'}, "
            f"{indexed.n_refused:,} rows refused"
        )
        return materialization_of(stored, tables)

    def waiting(key: str) -> dict[str, dg.MaterializeResult]:
        return index_what_waited(context.log, tables, key, find=find, storage_options=sources.storage_options)

    yield from each_partition(context, index, lake=lake, checks=CORPUS_CHECKS, besides=waiting)


def index_what_waited(
    log: dg.DagsterLogManager,
    tables: Lake,
    key: str,
    *,
    find: Callable[[str], LandedShard],
    storage_options: StorageOptions,
) -> dict[str, dg.MaterializeResult]:
    """Index the shards again that refused documents which shard `key` had and has no more; what came of it, by key."""
    made: dict[str, dg.MaterializeResult] = {}
    for other, stored in index_waiting(tables, key, find=find, storage_options=storage_options).items():
        if isinstance(stored, ValueError):
            log.warning(f"{other} refuses documents that {key} has no more, and cannot be indexed again: {stored}")
        else:
            log.info(f"{other} is indexed again: it refused documents that {key} has no more")
            made[other] = materialization_of(stored, tables)
    return made


def materialization_of(stored: StoredIndex, tables: Lake) -> dg.MaterializeResult:
    """What is told of a shard's index: its data version, and what people look for first."""
    indexed, odd = stored.indexed, stored.indexed.oddities
    held_by = Counter(name for name in indexed.quarantine["held_by"].to_pylist() if name is not None)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(indexed.content_digest),
        metadata={
            "documents": indexed.n_documents,
            "quarantined": indexed.n_refused,
            "bytes": indexed.n_bytes,
            "first_documents": dg.MetadataValue.md("\n\n".join(map(quoted, indexed.previews))),
            "document_bytes": quantiles(indexed.documents["n_bytes"].to_numpy()),
            "largest_document_bytes": odd.largest_bytes,
            "giant_documents": odd.giants,
            "one_character_documents": odd.one_character,
            "documents_with_control_characters": odd.control_characters,
            "exact_duplicates": odd.exact_duplicates,
            "ids_held_by_other_shards": as_json(dict(held_by.most_common(10))),
            "source": indexed.shard.shown,
            SOURCE_VERSION: stored.landed.version,
            "dagster/partition_row_count": indexed.n_documents,
            "dagster/uri": tables.root.table_uri("documents"),
            "delta_version": stored.version,
        },
    )
