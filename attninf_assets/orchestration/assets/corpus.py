"""The asset `raw_corpus`: the index of the corpus, shard by shard."""

from functools import partial

import dagster as dg

from attninf_assets.corpus.stored_index import index_and_store, indexed_from
from attninf_assets.orchestration.assets.partition_checks import CORPUS_CHECKS
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.orchestration.display.catalog import DELTA_TABLE, OWNERS, table_metadata
from attninf_assets.orchestration.display.metadata import quantiles
from attninf_assets.orchestration.display.text import quoted
from attninf_assets.orchestration.runs.partition_runs import PartitionEvents, each_partition, numbered
from attninf_assets.orchestration.runs.partitions import corpus_shards
from attninf_assets.orchestration.runs.retries import transient_faults_retried

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

    def index(key: str) -> dg.MaterializeResult:
        landed = sources.find(key, indexed_from=partial(indexed_from, tables))
        shard = landed.shard
        stored = index_and_store(tables, shard, storage_options=sources.storage_options)
        indexed = stored.indexed
        context.log.info(
            f"{numbered(context, key)}: {shard.shown}: {indexed.n_documents:,} documents "
            f"{'indexed' if stored.changed else 'found unchanged'}, "
            f"{indexed.n_refused:,} rows refused"
        )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(indexed.content_digest),
            metadata={
                "documents": indexed.n_documents,
                "quarantined": indexed.n_refused,
                "bytes": indexed.n_bytes,
                "first_documents": dg.MetadataValue.md("\n\n".join(map(quoted, indexed.previews))),
                "document_bytes": quantiles(indexed.documents["n_bytes"].to_numpy()),
                "source": shard.shown,
                SOURCE_VERSION: landed.version,
                "dagster/partition_row_count": indexed.n_documents,
                "dagster/uri": tables.root.table_uri("documents"),
                "delta_version": stored.version,
            },
        )

    yield from each_partition(context, index, lake=lake, checks=CORPUS_CHECKS)
