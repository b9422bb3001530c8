"""The assets `document_features` and `near_duplicates`: what the documents are like that are scored."""

from functools import partial

import dagster as dg

from attninf_assets.corpus.stored_index import indexed_from
from attninf_assets.orchestration.assets.corpus import raw_corpus
from attninf_assets.orchestration.assets.partition_checks import FEATURE_CHECKS
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.orchestration.display.catalog import DELTA_TABLE, OWNERS, table_metadata
from attninf_assets.orchestration.display.metadata import quantiles, records, rounded
from attninf_assets.orchestration.runs.partition_runs import PartitionEvents, each_partition, numbered
from attninf_assets.orchestration.runs.partitions import FEATURES_POOL, corpus_shards
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.scores.features.measures import FEATURES_VERSION
from attninf_assets.scores.features.near_duplicates import mark_near_duplicates
from attninf_assets.scores.features.update import ShardFeatures, update_document_features
from attninf_assets.scores.update import content_digest

_SHOWN = ("n_words", "repetition", "repeated_lines", "zstd_ratio", "alphabetic", "licence_markers", "log_markers")


@dg.asset(
    deps=[raw_corpus],
    partitions_def=corpus_shards,
    group_name="corpus",
    owners=OWNERS,
    tags=DELTA_TABLE,
    kinds={"deltalake", "polars"},
    code_version=str(FEATURES_VERSION),
    pool=FEATURES_POOL,
    metadata=table_metadata("document_features"),
)
@transient_faults_retried
def document_features(context: dg.AssetExecutionContext, corpus: CorpusResource, lake: LakeResource) -> PartitionEvents:
    """A row for each document: its length, how much of it is repeated, how well it compresses, marks of boilerplate.

    On real text the attention influence score rises with such things, so they are what a score has to be compared with,
    and what a selection may be narrowed by. No model and no device is needed, and no scoring waits for it. Only
    documents whose text changed are looked at; a shard that is current is left as it is.
    """
    tables, sources = lake.tables(), corpus.open()

    def measure(key: str) -> dg.MaterializeResult:
        shard = sources.find(key, indexed_from=partial(indexed_from, tables)).shard
        found = update_document_features(tables, shard, storage_options=sources.storage_options)
        context.log.info(f"{numbered(context, key)}: {_story(found)}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(content_digest(found.table, selector_fingerprint=str(FEATURES_VERSION))),
            metadata={
                "dagster/partition_row_count": len(found.table),
                "documents_computed": found.n_computed,
                "documents_kept": found.n_kept,
                **({"megabytes_per_second": _rate(found)} if found.n_computed else {}),
                **{name: quantiles(found.table[name].to_numpy()) for name in _SHOWN},
                "dagster/uri": tables.root.table_uri("document_features"),
            },
        )

    yield from each_partition(context, measure, lake=lake, checks=FEATURE_CHECKS)


@dg.asset(
    deps=[raw_corpus, document_features],
    group_name="corpus",
    owners=OWNERS,
    kinds={"deltalake", "duckdb"},
    code_version=str(FEATURES_VERSION),
    pool=FEATURES_POOL,
)
@transient_faults_retried
def near_duplicates(context: dg.AssetExecutionContext, lake: LakeResource) -> dg.MaterializeResult:
    """Which documents of a domain are the same, or nearly, as the features duplicate_group and near_duplicate_cluster.

    Near duplicates share a band of their MinHash over word 5-grams; clusters are what hangs together by that. They are
    found over a whole domain at once, whichever shards were computed first, and written into the shards where they
    differ from what stands there.
    """
    tables = lake.tables()
    domains = sorted({partition["domain"] for partition in tables.partitions("document_features")})
    found = [mark_near_duplicates(tables, domain) for domain in domains]
    passed_over = sum(domain.shards_passed_over for domain in found)
    if passed_over:
        context.log.warning(f"{passed_over:,} shards were being computed anew: materialize near_duplicates again")
    return dg.MaterializeResult(
        data_version=dg.DataVersion("; ".join(f"{domain.domain} {domain.digest}" for domain in found)),
        metadata={
            "domains": records(
                [
                    {
                        "domain": domain.domain,
                        "documents": domain.n_documents,
                        "duplicates": domain.n_duplicates,
                        "near_duplicates": domain.n_near_duplicates,
                        "clusters": domain.n_clusters,
                        "largest_cluster": domain.largest_cluster,
                    }
                    for domain in found
                ]
            ),
            "duplicates": sum(domain.n_duplicates for domain in found),
            "near_duplicates": sum(domain.n_near_duplicates for domain in found),
            "shards_written": sum(domain.shards_written for domain in found),
            "shards_passed_over": passed_over,
            "dagster/uri": tables.root.table_uri("document_features"),
        },
    )


def _rate(found: ShardFeatures) -> float:
    return rounded(found.bytes_computed / 1e6 / max(found.seconds, 1e-9))


def _story(found: ShardFeatures) -> str:
    if found.version is None:
        return f"the features of all {found.n_kept:,} documents are current: nothing to do"
    return f"features of {found.n_computed:,} documents computed in {found.seconds:.1f} s, {found.n_kept:,} kept"
