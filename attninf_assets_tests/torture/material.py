"""What the killed processes work on: a small corpus and small models; and the state in which they find a root."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl
import torch
import yaml

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.stored_index import index_and_store
from attninf_assets.orchestration.assets.mixture import MixConfig, training_corpus
from attninf_assets.orchestration.assets.selection import SelectionConfig, score_thresholds, selected_subset
from attninf_assets.orchestration.assets.selector import (
    HeadConfig,
    ProbeConfig,
    retrieval_heads,
    retrieval_probes,
    selector_model,
)
from attninf_assets.orchestration.assets.what_if import score_bands
from attninf_assets.scores.features.near_duplicates import mark_near_duplicates
from attninf_assets.scores.features.update import update_document_features
from attninf_assets.scores.update import update_partition_scores
from attninf_assets.selector.stored import current_selector
from attninf_assets_tests.support.crashes import journalled_engine
from attninf_assets_tests.support.planted_model import planted_model
from attninf_assets_tests.support.source_files import landed
from attninf_assets_tests.support.tiny_gguf import tiny_gguf
from attninf_assets_tests.torture.scene import Scene
from benchmarks.rigs.made_up_text import sentences, tiny_tokenizer

__all__ = ["HEADS", "MIX", "SHARDS", "build", "changed", "gone", "make_material", "mixed", "score", "select", "shard"]

SHARDS = ("letters.a", "letters.b", "notes.first")
HEADS = HeadConfig(max_tokens=64)
MIX = MixConfig(rows_per_file=40)


def make_material(directory: Path) -> None:
    """Write the sources and the models."""
    plain = sentences()
    _parquet(directory / "source/letters/a.parquet", "a", plain[:30])
    _parquet(directory / "source/letters/b.parquet", "b", plain[30:55])
    notes = [json.dumps({"key": f"n{number}", "body": text}) for number, text in enumerate(plain[55:75])]
    _text(directory / "source/notes/first.jsonl", "\n".join([*notes, '{"key": "n0", "body": "again"}', "no JSON"]))
    _parquet(directory / "changed/letters/a.parquet", "a", [*(f"{text} Indeed." for text in plain[:20]), " ", *plain])
    _parquet(directory / "gone/letters/gone.parquet", "gone", [*plain[:10], ""])
    _parquet(directory / "gone/letters/lost.parquet", "lost", plain[10:20])
    selections = {"paper": {}, "lean": {"keep": {"fraction": 0.4, "of": "tokens"}}}
    _text(directory / "selections.yaml", yaml.safe_dump({"selections": selections}))
    domains = {
        "letters": {"files": "source/letters/*.parquet", "format": "parquet", "id_column": "id"},
        "notes": {"files": "source/notes/*.jsonl", "format": "jsonl", "text_column": "body", "id_column": "key"},
    }
    _text(directory / "corpus.yaml", yaml.safe_dump({"domains": domains}))
    another = copy.deepcopy(planted_model())
    with torch.no_grad():
        another.lm_head.weight.mul_(1.5)
    for name, model in (("model", planted_model()), ("another_model", another)):
        model.save_pretrained(directory / name)
        tiny_tokenizer().save_pretrained(directory / name)
    tiny_gguf(directory / "model.gguf")


def _parquet(path: Path, mark: str, texts: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame({"id": [f"{mark}{number}" for number in range(len(texts))], "text": texts}).write_parquet(path)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def shard(scene: Scene, key: str) -> Shard:
    """A shard of the corpus as its sources are."""
    return scene.resources().corpus.open().find(key).shard


def changed(scene: Scene) -> Shard:
    """The shard letters.a, as if its file were another."""
    return Shard("letters", "a", str(scene.material / "changed/letters/a.parquet"), "parquet", "text", "id")


def gone(scene: Scene, name: str) -> Shard:
    """A shard whose file no glob finds."""
    return Shard("letters", name, str(scene.material / f"gone/letters/{name}.parquet"), "parquet", "text", "id")


def score(scene: Scene, one: Shard) -> None:
    """Bring the shard's scores up to date, every chunk staged."""
    update_partition_scores(
        scene.lake,
        one,
        current_selector(scene.root),
        load=lambda: journalled_engine(scene.place / "journal"),
        storage_options={},
        stage_every=0,
    )


def select(scene: Scene, *names: str) -> None:
    """Materialize named selections."""
    of, instance = scene.resources(), scene.instance()
    for name in names:
        context = dg.build_asset_context(instance=instance, partition_key=name)
        score_thresholds(context, config=SelectionConfig(), selections=of.selections, lake=of.lake)
        selected_subset(context, selections=of.selections, corpus=of.corpus, lake=of.lake)


def mixed(scene: Scene, config: MixConfig) -> None:
    """Materialize the training corpus."""
    of = scene.resources()
    context = dg.build_asset_context(instance=scene.instance())
    training_corpus(context, config=config, selections=of.selections, corpus=of.corpus, lake=of.lake)


def build(scene: Scene) -> None:
    """Materialize every asset once."""
    of, context = scene.resources(), dg.build_asset_context(instance=scene.instance())
    for key in SHARDS:
        index_and_store(scene.lake, landed(shard(scene, key)))
    selector_model(context, selector=of.selector, lake=of.lake)
    probes = ProbeConfig(n_probes=2, probe_tokens=900)
    retrieval_probes(context, config=probes, selector=of.selector, corpus=of.corpus, lake=of.lake)
    retrieval_heads(context, config=HEADS, corpus=of.corpus, lake=of.lake)
    for key in SHARDS:
        score(scene, shard(scene, key))
        update_document_features(scene.lake, shard(scene, key))
    for domain in sorted({key.partition(".")[0] for key in SHARDS}):
        mark_near_duplicates(scene.lake, domain)
    select(scene, "paper")
    score_bands(context, lake=of.lake)
    mixed(scene, MIX)
