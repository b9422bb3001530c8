"""The asset `training_corpus`: the files that a trainer reads."""

from dataclasses import asdict

import dagster as dg
from pydantic import Field

from attninf_assets.mixture.manifest import CORPUS_DIRECTORY
from attninf_assets.mixture.mixed_documents import (
    MixSettings,
    current_manifest,
    indexed_bytes,
    mix_provenance,
    mixed_documents,
)
from attninf_assets.mixture.training_corpus import write_training_corpus
from attninf_assets.orchestration.assets.corpus import raw_corpus
from attninf_assets.orchestration.assets.scores import attention_influence_scores
from attninf_assets.orchestration.assets.selection import selected_subset
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource
from attninf_assets.orchestration.display.catalog import OWNERS, PARQUET_FILES, corpus_metadata
from attninf_assets.orchestration.display.metadata import records, reporter
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.selector.stored import current_fingerprint


class MixConfig(dg.Config):
    """Run configuration of `training_corpus`: weights of corpus and selection, seed, and size of the files."""

    corpus_weight: float = Field(default=1.0, description="Copies of every document; fractions are drawn by seed.")
    selected_weight: float = Field(default=1.0, description="Further copies of every selected document.")
    seed: int = Field(default=0, description="The global shuffle and fractional copies follow from it.")
    rows_per_file: int = Field(default=100_000, description="Rows of one Parquet file.")


@dg.asset(
    deps=[raw_corpus, attention_influence_scores, selected_subset],
    group_name="mixture",
    owners=OWNERS,
    tags=PARQUET_FILES,
    kinds={"parquet", "pyarrow"},
    code_version="1",
    pool="training_corpus",  # one run at a time may write it
    metadata=corpus_metadata(),
)
@transient_faults_retried
def training_corpus(
    context: dg.AssetExecutionContext, config: MixConfig, corpus: CorpusResource, lake: LakeResource
) -> dg.MaterializeResult:
    """The training data: zstd Parquet files of `doc_id, domain, text, source`, and the `manifest.json` that names them.

    A trainer reads these files: the full corpus plus the selected subset at given weights (paper: 1 and 1), shuffled
    globally by seed. They lie under `training_corpus/`; the manifest has the counts and hashes of every file.
    """
    tables, sources = lake.tables(), corpus.open()
    fingerprint = current_fingerprint(tables.root)
    provenance = mix_provenance(tables, selector_fingerprint=fingerprint)
    settings = MixSettings(
        seed=config.seed,
        corpus_weight=config.corpus_weight,
        selected_weight=config.selected_weight,
        rows_per_file=config.rows_per_file,
    )
    current = current_manifest(tables.root, settings, provenance)
    manifest = current or write_training_corpus(
        mixed_documents(
            tables,
            {shard.key: shard for shard in sources.shards()},
            selector_fingerprint=fingerprint,
            storage_options=sources.storage_options,
            on_progress=reporter(context.log),
        ),
        tables.root,
        n_bytes=indexed_bytes(tables),
        **asdict(settings),
        provenance=provenance,
    )
    n_rows = sum(file.rows for file in manifest.files)
    context.log.info(f"{n_rows:,} rows {'are there already, unchanged' if current else 'written'}")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(manifest.content_digest),
        metadata={
            "dagster/row_count": n_rows,
            "dagster/uri": f"{tables.root.uri}/{CORPUS_DIRECTORY}",
            "manifest": f"{tables.root.uri}/{CORPUS_DIRECTORY}/manifest.json",
            "files": len(manifest.files),
            "bytes": sum(file.bytes for file in manifest.files),
            "tokens": sum(share.tokens for share in manifest.shares),
            "shares": records(
                [
                    {
                        "domain": s.domain,
                        "source": s.source,
                        "documents": s.documents,
                        "rows": s.rows,
                        "tokens": s.tokens,
                    }
                    for s in manifest.shares
                ]
            ),
            "provenance": dg.MetadataValue.json(provenance),
            "rewritten": current is None,
        },
    )
