"""What the catalog shows of the assets: owners, storage, columns, versions, links, and what Dagster does not make."""

import inspect
import linecache

import dagster as dg
import pytest

from attninf_assets.definitions import definitions
from attninf_assets.mixture.manifest import CORPUS_COLUMNS, CORPUS_SCHEMA
from attninf_assets.store.schemas import TABLES

EXTERNAL = {"source_files", "pretrained_model", "selection_definitions", "mix_definition", "quarantine", "scoring_runs"}
TABLE_OF = {
    "raw_corpus": "documents",
    "quarantine": "quarantine",
    "document_features": "document_features",
    "retrieval_probes": "retrieval_probes",
    "retrieval_heads": "head_scores",
    "attention_influence_scores": "scores",
    "scoring_runs": "scoring_runs",
    "score_thresholds": "thresholds",
    "selected_subset": "selected_subset",
    "score_bands": "score_bands",
}


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions().resolve_all_asset_specs()}


def test_what_dagster_does_not_make_is_external_and_asked_for_by_nothing() -> None:
    defs = definitions()
    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.external_asset_keys} == EXTERNAL
    job = defs.resolve_implicit_global_asset_job_def()
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys}.isdisjoint(EXTERNAL)
    everything = {key.to_user_string() for key in dg.AssetSelection.from_string("*").resolve(graph)}
    assert everything.isdisjoint(EXTERNAL)


def test_every_asset_has_an_owner_and_a_group_of_the_project(specs: dict[str, dg.AssetSpec]) -> None:
    for name, spec in specs.items():
        assert spec.owners == ["team:pretraining-data"], name
        assert spec.group_name in {"corpus", "selector", "scores", "selection", "mixture", "storage"}, name


def test_every_table_has_one_catalog_entry_with_its_columns(specs: dict[str, dg.AssetSpec]) -> None:
    assert set(TABLE_OF.values()) == set(TABLES)
    for asset, table in TABLE_OF.items():
        metadata = specs[asset].metadata
        assert metadata["dagster/table_name"] == f"tables/{table}"
        assert metadata["dagster/storage_kind"] == specs[asset].tags["dagster/storage_kind"] == "deltalake"
        columns = metadata["dagster/column_schema"].columns
        assert [(column.name, column.type) for column in columns] == [(f.name, str(f.type)) for f in TABLES[table]]
        assert all(column.description for column in columns)


def test_the_training_corpus_shows_its_columns_and_its_files_carry_no_descriptions(
    specs: dict[str, dg.AssetSpec],
) -> None:
    """Parquet would store them, and a mix that was written before would have other bytes."""
    columns = specs["training_corpus"].metadata["dagster/column_schema"].columns
    assert {column.name: column.description for column in columns} == CORPUS_COLUMNS
    assert CORPUS_SCHEMA.metadata is None
    assert all(field.metadata is None for field in CORPUS_SCHEMA)


def test_the_lineage_begins_with_the_places_that_the_settings_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNINF_SELECTOR", "org/name@0123456789abcdef0123456789abcdef01234567")
    specs = {spec.key.to_user_string(): spec for spec in definitions().resolve_all_asset_specs()}
    source = specs["pretrained_model"].metadata["source"]
    assert source == "org/name@0123456789abcdef0123456789abcdef01234567"
    assert specs["source_files"].metadata["corpus_file"] == "the sample, in .sample/corpus"


def test_code_versions_stand_for_what_decides_the_rows_and_reports_have_none(specs: dict[str, dg.AssetSpec]) -> None:
    reports = {"score_coverage", "rescoring_preview", "lake_maintenance", "selection_what_if"}
    assert {name for name, spec in specs.items() if spec.code_version is None} == reports | EXTERNAL


def test_links_lead_to_the_functions_that_make_the_assets(specs: dict[str, dg.AssetSpec]) -> None:
    for name in set(specs) - EXTERNAL:
        (link,) = specs[name].metadata["dagster/code_references"].code_references
        source = "".join(inspect.getblock(linecache.getlines(link.file_path)[link.line_number - 1 :]))
        assert source.startswith("@dg.asset"), name
        assert f"def {name}(" in source
