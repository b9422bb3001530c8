"""The asset `training_corpus`: the files that a trainer reads."""

from dataclasses import asdict

import dagster as dg
from pydantic import Field

from attninf_assets.mixture.corpus_files import remove_leftovers
from attninf_assets.mixture.manifest import CORPUS_DIRECTORY, MANIFEST, MixSettings
from attninf_assets.mixture.mixed_documents import mixed_documents
from attninf_assets.mixture.snapshot import MixSnapshot
from attninf_assets.mixture.training_corpus import write_training_corpus
from attninf_assets.mixture.verification import reusable_manifest
from attninf_assets.orchestration.assets.corpus import raw_corpus
from attninf_assets.orchestration.assets.scores import attention_influence_scores
from attninf_assets.orchestration.assets.selection import selected_subset
from attninf_assets.orchestration.connections.resources import CorpusResource, LakeResource, SelectionsResource
from attninf_assets.orchestration.display.catalog import OWNERS, PARQUET_FILES, corpus_metadata
from attninf_assets.orchestration.display.metadata import as_json, records, reporter
from attninf_assets.orchestration.runs.check_history import last_result_was_a_failure
from attninf_assets.orchestration.runs.retries import transient_faults_retried
from attninf_assets.selector.stored import current_fingerprint

_CHECK = dg.AssetCheckKey(dg.AssetKey("training_corpus"), "training_corpus_is_its_manifest")


class MixConfig(dg.Config):
    """Run configuration of `training_corpus`: weights of corpus and selection, seed, and size of the files."""

    corpus_weight: float = Field(default=1.0, description="Copies of every document; fractions are drawn by seed.")
    selected_weight: float = Field(default=1.0, description="Further copies of every selected document.")
    seed: int = Field(default=0, description="The global shuffle and fractional copies follow from it.")
    rows_per_file: int = Field(default=100_000, description="Rows of one Parquet file.")
    verify: bool = Field(
        default=False,
        description="Read every file that is there back before it is left unchanged, as after a failed check.",
    )


@dg.asset(
    deps=[
        raw_corpus,
        attention_influence_scores,
        dg.AssetDep(selected_subset, partition_mapping=dg.AllPartitionMapping()),
        "mix_definition",
    ],
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
    context: dg.AssetExecutionContext,
    config: MixConfig,
    selections: SelectionsResource,
    corpus: CorpusResource,
    lake: LakeResource,
) -> dg.MaterializeResult:
    """The training data: zstd Parquet files of `doc_id, domain, text, source`, and the `manifest.json` that names them.

    A trainer reads these files: the full corpus plus the selected subset at given weights (paper: 1 and 1), shuffled
    globally by seed. They lie under `training_corpus/`; the manifest has the counts and hashes of every file. Written
    anew where inputs or settings changed or a file is damaged; leftovers of killed runs are removed in any case.
    """
    tables, sources = lake.tables(), corpus.open()
    selection = selections.read().mixed
    snapshot = MixSnapshot.take(tables, selector_fingerprint=current_fingerprint(tables.root), selection=selection)
    settings = MixSettings(
        seed=config.seed,
        corpus_weight=config.corpus_weight,
        selected_weight=config.selected_weight,
        rows_per_file=config.rows_per_file,
    )
    thorough = config.verify or last_result_was_a_failure(context.instance, _CHECK)
    current = reusable_manifest(tables.root, settings, snapshot.provenance, thorough=thorough)
    if current is not None:
        _, n_leftovers = remove_leftovers(tables.root, current)
        context.log.info(f"{n_leftovers} leftovers of killed runs removed")
    manifest = current or write_training_corpus(
        mixed_documents(
            snapshot,
            {shard.key: shard for shard in sources.shards()},
            storage_options=sources.storage_options,
            on_progress=reporter(context.log),
        ),
        tables.root,
        n_bytes=snapshot.n_bytes,
        **asdict(settings),
        provenance=snapshot.provenance,
    )
    n_rows = sum(file.rows for file in manifest.files)
    context.log.info(f"{n_rows:,} rows {'are there already, unchanged' if current else 'written'}")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(manifest.content_digest),
        metadata={
            "selection": selection,
            "dagster/row_count": n_rows,
            "tokens": sum(share.tokens for share in manifest.shares),
            "bytes": sum(file.bytes for file in manifest.files),
            "files": len(manifest.files),
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
            "dagster/uri": f"{tables.root.uri}/{CORPUS_DIRECTORY}",
            "manifest": f"{tables.root.uri}/{MANIFEST}",
            "provenance": as_json(snapshot.provenance),
            "table_versions": as_json(dict(snapshot.versions)),
            "rewritten": current is None,
        },
    )


select_and_mix_job = dg.define_asset_job(
    "select_and_mix",
    selection=dg.AssetSelection.assets("score_thresholds", "selected_subset", training_corpus),
    description="Find a selection's thresholds, select what is at or above them, write the training corpus.",
)
