"""The asset graph as it is relied on: names, groups, edges, and that everything is described."""

import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml

from attninf_assets.definitions import definitions

GROUPS = {
    "raw_corpus": "corpus",
    "document_features": "corpus",
    "near_duplicates": "corpus",
    "selector_model": "selector",
    "retrieval_probes": "selector",
    "retrieval_heads": "selector",
    "attention_influence_scores": "scores",
    "score_confounders": "scores",
    "score_thresholds": "selection",
    "selected_subset": "selection",
    "score_bands": "selection",
    "selection_what_if": "selection",
    "training_corpus": "mixture",
}
EDGES = {
    "raw_corpus": {"source_files"},
    "quarantine": {"raw_corpus"},
    "document_features": {"raw_corpus"},
    "near_duplicates": {"raw_corpus", "document_features"},
    "score_confounders": {"attention_influence_scores", "document_features", "near_duplicates"},
    "selector_model": {"pretrained_model"},
    "retrieval_probes": {"source_files", "selector_model"},
    "retrieval_heads": {"selector_model", "retrieval_probes"},
    "attention_influence_scores": {"raw_corpus", "retrieval_heads"},
    "scoring_runs": {"attention_influence_scores"},
    "score_thresholds": {"raw_corpus", "attention_influence_scores", "selection_definitions"},
    "selected_subset": {"attention_influence_scores", "score_thresholds"},
    "score_bands": {"attention_influence_scores"},
    "selection_what_if": {"attention_influence_scores", "selected_subset"},
    "training_corpus": {"raw_corpus", "attention_influence_scores", "selected_subset", "mix_definition"},
}


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions().resolve_all_asset_specs()}


def test_the_contracts_assets_are_there_in_their_groups(specs: dict[str, dg.AssetSpec]) -> None:
    assert {name: specs[name].group_name for name in GROUPS} == GROUPS


def test_edges_are_the_methods_and_new_shards_never_touch_the_selector(specs: dict[str, dg.AssetSpec]) -> None:
    assert {name: {dep.asset_key.to_user_string() for dep in specs[name].deps} for name in EDGES} == EDGES


def test_every_asset_says_what_it_is(specs: dict[str, dg.AssetSpec]) -> None:
    for name, spec in specs.items():
        assert len(spec.description or "") > 60, name
        assert spec.kinds, name


@pytest.mark.parametrize("name", ["raw_corpus", "retrieval_heads", "attention_influence_scores", "score_thresholds"])
def test_tables_show_their_columns_with_meanings(specs: dict[str, dg.AssetSpec], name: str) -> None:
    schema = specs[name].metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert all(column.description for column in schema.columns)
    assert not any("<" in (column.description or "") for column in schema.columns), "the UI would drop it as HTML"


def test_device_work_queues_in_one_pool_and_other_work_does_not() -> None:
    pools = {
        asset.key.to_user_string(): asset.node_def.pools if asset.is_executable else set()
        for asset in definitions().resolve_asset_graph().assets_defs
        if asset.keys and len(asset.keys) == 1
    }
    assert pools["attention_influence_scores"] == pools["retrieval_heads"] == {"gpu"}
    assert not any(pools[name] for name in ("raw_corpus", "score_thresholds", "selected_subset", "score_confounders"))
    assert pools["document_features"] == pools["near_duplicates"] == {"document_features"}
    assert pools["training_corpus"] == {"training_corpus"}  # one writer at a time


def test_every_way_to_start_gives_the_code_location_the_same_name() -> None:
    """The name is part of a sensor's identity: under another one its cursor is lost."""
    root = Path(__file__).parent.parent
    (location,) = yaml.safe_load((root / "workspace.yaml").read_text())["load_from"]
    tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]
    named = [tools["dg"]["project"], tools["dagster"]]
    assert location["python_module"]["location_name"] == "attninf_assets"
    assert [tool["code_location_name"] for tool in named] == ["attninf_assets", "attninf_assets"]
