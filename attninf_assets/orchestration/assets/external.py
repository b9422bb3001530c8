"""External assets: what people or other assets make: source files, model, selections, tables beside an asset's own.

They show where the lineage begins and where all tables come from. Dagster never materializes them, so no automation
condition may wait for one: see `rescoring`. The sensor `selections` reports what becomes of `selection_definitions`.
"""

import dagster as dg

from attninf_assets.orchestration.connections.resources import (
    SAMPLE,
    CorpusResource,
    SelectionsResource,
    SelectorResource,
)
from attninf_assets.orchestration.display.catalog import DELTA_TABLE, OWNERS, table_metadata
from attninf_assets.orchestration.runs.partitions import selections as selection_names


def source_files(corpus: dg.ConfigurableResource) -> dg.AssetSpec:
    """The external asset `source_files`: the files that the corpus file's globs match."""
    assert isinstance(corpus, CorpusResource)
    return dg.AssetSpec(
        "source_files",
        group_name="corpus",
        owners=OWNERS,
        kinds={"parquet", "json"},
        description="The documents where they landed: Parquet and JSONL files, matched by the corpus file's globs.\n\n"
        "One file is one shard. They are read in place and never written; text is copied only into the training "
        "corpus. The sensor `new_shards` watches them.",
        metadata={"corpus_file": _named(corpus.file, f"{corpus.sample_dir}/corpus"), "setting": "ATTNINF_CORPUS"},
    )


def pretrained_model(selector: dg.ConfigurableResource) -> dg.AssetSpec:
    """The external asset `pretrained_model`: the model that `selector_model` pins."""
    assert isinstance(selector, SelectorResource)
    return dg.AssetSpec(
        "pretrained_model",
        group_name="selector",
        owners=OWNERS,
        kinds={"huggingface"},
        description="The small pretrained LM that is to score, where it comes from: a Hugging Face directory, a GGUF "
        "file, or a revision on the hub.\n\nNothing that happens to it changes a score: materialize `selector_model` "
        "to pin what is there now.",
        metadata={"source": _named(selector.source, f"{selector.sample_dir}/model"), "setting": "ATTNINF_SELECTOR"},
    )


def selection_definitions(selections: dg.ConfigurableResource) -> dg.AssetSpec:
    """The external asset `selection_definitions`: the named selections of the selections file."""
    assert isinstance(selections, SelectionsResource)
    return dg.AssetSpec(
        "selection_definitions",
        partitions_def=selection_names,
        group_name="selection",
        owners=OWNERS,
        kinds={"yaml"},
        description="The named selections, as the selections file defines them.\n\nThe sensor `selections` registers "
        "each as a partition and reports its definition; a changed one makes that selection's thresholds stale, and no "
        "other's. Without a file there is `paper`: the top 20 % of the documents of every domain.",
        metadata={"selections_file": selections.file or "none", "setting": "ATTNINF_SELECTIONS"},
    )


def mix_definition(selections: dg.ConfigurableResource) -> dg.AssetSpec:
    """The external asset `mix_definition`: which selection the training corpus repeats."""
    assert isinstance(selections, SelectionsResource)
    return dg.AssetSpec(
        "mix_definition",
        group_name="mixture",
        owners=OWNERS,
        kinds={"yaml"},
        description="The selection that the training corpus repeats: `mix` in the selections file.\n\nWithout it that "
        "is `paper`, or the only selection there is. The sensor `selections` reports it.",
        metadata={"selections_file": selections.file or "none", "setting": "ATTNINF_SELECTIONS"},
    )


def _named(source: str, sample: str) -> str:
    return f"the sample, in {sample}" if source == SAMPLE else source


quarantine = dg.AssetSpec(
    "quarantine",
    deps=["raw_corpus"],
    group_name="corpus",
    owners=OWNERS,
    tags=DELTA_TABLE,
    kinds={"deltalake"},
    description="The rows of the source files that cannot be documents, each with the reason.\n\nWritten by "
    "`raw_corpus` with the shard's documents; its check `quarantine_is_small` warns of more than 5 %.",
    metadata=table_metadata("quarantine"),
)

scoring_runs = dg.AssetSpec(
    "scoring_runs",
    deps=["attention_influence_scores"],
    group_name="scores",
    owners=OWNERS,
    tags=DELTA_TABLE,
    kinds={"deltalake"},
    description="What every scoring of a shard did and took: documents scored, resumed and reused, tokens, seconds, "
    "device.\n\nWritten by `attention_influence_scores` as it commits a shard. `rescoring_preview` predicts from it, "
    "`score_coverage` sums it up.",
    metadata=table_metadata("scoring_runs"),
)
