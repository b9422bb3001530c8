"""Retiring shards whose file is gone: what goes, what stays, what is refused."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.definitions import definitions
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS
from attninf_assets.store.retirement import Retired, retire_shard, stored_shards, to_retire
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.pipeline import SELECTION, SHARDS, Pipeline, build_pipeline
from benchmarks.rigs.tables_of_scores import scores_of

_TABLES = ("scores", "documents", "quarantine")


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Every shard indexed and scored by hand: retirement looks at no score."""
    pipeline = build_pipeline(tmp_path, monkeypatch)
    for key in SHARDS:
        domain, name = key.split(".")
        pipeline.run(["raw_corpus"], key)
        where = {"domain": domain, "shard": name}
        pipeline.lake.replace("scores", scores_of(domain, name, 25), where=where)
        refused = [{**where, "source_uri": "x", "source_row": 0, "reason": "not text"}]
        pipeline.lake.replace("quarantine", pa.Table.from_pylist(refused, schema=TABLES["quarantine"]), where=where)
    return pipeline


def retire(pipeline: Pipeline, *shards: str) -> list[str]:
    """Run the job; what it logged."""
    config = {"ops": {"retire": {"config": {"shards": list(shards)}}}}
    result = definitions().resolve_job_def("retire_shards").execute_in_process(config, instance=pipeline.instance)
    return [event.user_message for event in pipeline.instance.all_logs(result.run_id)]


def state(pipeline: Pipeline) -> tuple[Mapping[str, set[str]], set[str]]:
    """The keys in each table, and the partitions."""
    rows = {name: pipeline.lake.read(name, columns=["domain", "shard"]).to_pylist() for name in _TABLES}
    keys = {name: {f"{row['domain']}.{row['shard']}" for row in found} for name, found in rows.items()}
    return keys, set(pipeline.instance.get_dynamic_partitions(CORPUS_SHARDS))


def everywhere(*keys: str) -> tuple[Mapping[str, set[str]], set[str]]:
    return {name: set(keys) for name in _TABLES}, set(keys)


def source_of(pipeline: Pipeline, key: str) -> Path:
    domain, name = key.split(".")
    return next((pipeline.directory / "source" / domain).glob(f"{name}.*"))


def test_without_names_every_shard_whose_file_is_gone_is_retired_with_its_partition(pipeline: Pipeline) -> None:
    kept = {name: pipeline.rows(name, domain="notes") for name in _TABLES}
    source_of(pipeline, "letters.b").unlink()
    logged = retire(pipeline)
    assert state(pipeline) == everywhere("letters.a", "notes.first")
    assert "retired letters.b: 25 documents, 25 scores, 1 quarantined rows" in logged
    for name, rows in kept.items():
        assert pipeline.rows(name, domain="notes").equals(rows)
    assert any(line.startswith("nothing to retire") for line in retire(pipeline))
    assert state(pipeline) == everywhere("letters.a", "notes.first")


def test_only_the_named_shards_are_retired(pipeline: Pipeline) -> None:
    for key in SHARDS:
        source_of(pipeline, key).unlink()
    retire(pipeline, "notes.first", "letters.a")
    assert state(pipeline) == everywhere("letters.b")


@pytest.mark.parametrize("other", ["letters.a", "letters.typo", "letters"])
def test_a_shard_that_is_there_or_unknown_is_refused_before_anything_is_deleted(pipeline: Pipeline, other: str) -> None:
    source_of(pipeline, "letters.b").unlink()
    before = state(pipeline)
    with pytest.raises(ValueError, match=rf"shard {other}: "):
        retire(pipeline, "letters.b", other)
    assert state(pipeline) == before


def test_a_domain_whose_folder_is_away_is_retired_only_by_name(pipeline: Pipeline) -> None:
    (pipeline.directory / "source" / "notes").rename(pipeline.directory / "unmounted")
    with pytest.raises(ValueError, match=r"shard notes\.first: no file of domain 'notes' was found"):
        retire(pipeline)
    assert state(pipeline) == everywhere(*SHARDS)
    retire(pipeline, "notes.first")
    assert state(pipeline) == everywhere("letters.a", "letters.b")


def test_after_another_corpus_file_is_taken_the_old_shards_can_be_retired(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"letters": {"files": "source/letters/*.parquet", "format": "parquet", "id_column": "id"}}
    path = pipeline.directory / "other.yaml"
    path.write_text(yaml.safe_dump({"domains": other}))
    monkeypatch.setenv("ATTNINF_CORPUS", str(path))
    with pytest.raises(dg.Failure, match=r"no domain 'notes'.*retire_shards"):
        pipeline.run(["raw_corpus"], "notes.first")
    retire(pipeline)
    assert state(pipeline) == everywhere("letters.a", "letters.b")


def test_a_retirement_that_was_cut_short_is_finished_by_the_next(pipeline: Pipeline) -> None:
    source_of(pipeline, "letters.b").unlink()
    pipeline.lake.replace("scores", TABLES["scores"].empty_table(), where={"domain": "letters", "shard": "b"})
    pipeline.instance.delete_dynamic_partition(CORPUS_SHARDS, "letters.b")
    retire(pipeline, "letters.b")
    assert state(pipeline) == everywhere("letters.a", "notes.first")


def test_the_mix_goes_through_again_once_a_gone_shard_is_retired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build_pipeline(tmp_path, monkeypatch)
    pipeline.run_everything()
    source_of(pipeline, "letters.b").unlink()
    (tmp_path / "root" / "training_corpus" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"shard letters\.b is indexed.*retire_shards"):
        pipeline.run(["training_corpus"])
    retire(pipeline)
    result = pipeline.run(SELECTION)
    assert result.success
    assert set(pipeline.rows("selected_subset")["shard"]) <= {"a", "first"}


def test_retiring_below_the_line_counts_rows_writes_only_where_there_are_any_and_may_be_repeated(root: Root) -> None:
    lake = Lake(root)
    lake.replace("scores", scores_of("web", "a", 3), where={"domain": "web", "shard": "a"})
    lake.replace("scores", scores_of("web", "b", 2), where={"domain": "web", "shard": "b"})
    assert stored_shards(lake) == {("web", "a"), ("web", "b")}
    assert retire_shard(lake, domain="web", shard="a") == Retired(scores=3, documents=0, quarantine=0, features=0)
    versions = {name: lake.version(name) for name in _TABLES}
    assert retire_shard(lake, domain="web", shard="a") == Retired(scores=0, documents=0, quarantine=0, features=0)
    assert {name: lake.version(name) for name in _TABLES} == versions
    assert versions["documents"] is None
    assert stored_shards(lake) == {("web", "b")}


_KEYS = st.sets(st.sampled_from([f"{domain}.{name}" for domain in ("x", "y") for name in "abc"]))


@given(known=_KEYS, landed=_KEYS, wanted=_KEYS)
def test_what_is_retired_is_known_has_no_file_and_was_wanted(
    known: set[str], landed: set[str], wanted: set[str]
) -> None:
    try:
        chosen = to_retire(sorted(wanted), known=known, landed=landed, domains={"x"})
    except ValueError:
        emptied = not any(key.startswith("x.") for key in landed) and any(key.startswith("x.") for key in known)
        assert wanted & landed or wanted - known or (not wanted and emptied)
    else:
        assert set(chosen) == (wanted or known - landed)
        assert not set(chosen) & landed
