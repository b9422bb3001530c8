"""training_corpus materialized again: damage is repaired, leftovers are removed, and otherwise nothing is written."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from attninf_assets_tests.support.pipeline import SHARDS, Pipeline, build_pipeline, checked, materialized, put_back

CHECK = "training_corpus_is_its_manifest"

# Materializes the asset with another seed and is killed between the manifest and the clean-up.
KILLED = f"""
import os, signal
import dagster as dg
from attninf_assets.definitions import definitions
from attninf_assets.mixture import training_corpus
from attninf_assets.orchestration.runs.partitions import CORPUS_SHARDS

training_corpus.remove_leftovers = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
instance = dg.DagsterInstance.ephemeral()
instance.add_dynamic_partitions(CORPUS_SHARDS, {SHARDS})
definitions().resolve_implicit_global_asset_job_def().execute_in_process(
    instance=instance,
    asset_selection=[dg.AssetKey("training_corpus")],
    run_config={{"ops": {{"training_corpus": {{"config": {{"seed": 9}}}}}}}},
)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline in which everything was materialized once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        pipeline = build_pipeline(tmp_path_factory.mktemp("mixture"), monkeypatch)
        pipeline.run_everything()
        yield pipeline


@pytest.fixture
def pipeline(finished: Pipeline, tmp_path: Path) -> Iterator[Pipeline]:
    """The finished pipeline, whose storage a test may break: it is put back afterwards."""
    with put_back(finished, tmp_path / "kept"):
        yield finished
    _mix(finished)


def _mix(pipeline: Pipeline, **config: object) -> Any:
    return materialized(
        pipeline.run(["training_corpus"], config={"training_corpus": {"config": config}}), "training_corpus"
    )


def _directory(pipeline: Pipeline) -> Path:
    return Path(pipeline.lake.root.uri) / "training_corpus"


def _flip(pipeline: Pipeline) -> tuple[Path, bytes]:
    (file,) = _directory(pipeline).glob("*.parquet")
    content = file.read_bytes()
    file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    return file, content


def _faults(check: dg.AssetCheckEvaluation) -> list[str]:
    faults = check.metadata["faults"].value
    assert isinstance(faults, list)
    return [str(fault) for fault in faults]


def test_a_flipped_byte_fails_the_check_and_materializing_then_gives_the_same_bytes_again(pipeline: Pipeline) -> None:
    file, content = _flip(pipeline)
    check = checked(pipeline, CHECK)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert "sha256" in _faults(check)[0]
    assert _mix(pipeline)["rewritten"] is True
    assert file.read_bytes() == content
    assert checked(pipeline, CHECK).passed
    assert _mix(pipeline)["rewritten"] is False


def test_what_is_not_damaged_by_any_check_is_read_back_only_where_it_is_asked_for(pipeline: Pipeline) -> None:
    file, content = _flip(pipeline)
    assert _mix(pipeline, verify=True)["rewritten"] is True
    assert file.read_bytes() == content
    assert _mix(pipeline, verify=True)["rewritten"] is False


def test_a_cut_file_is_seen_by_its_size_and_written_again(pipeline: Pipeline) -> None:
    (file,) = _directory(pipeline).glob("*.parquet")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert _mix(pipeline)["rewritten"] is True
    assert file.read_bytes() == content


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"[]"])
def test_a_damaged_manifest_fails_the_check_by_name_and_is_replaced(
    pipeline: Pipeline, damage: Callable[[bytes], bytes]
) -> None:
    manifest = _directory(pipeline) / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(damage(content))
    check = checked(pipeline, CHECK)
    assert not check.passed
    assert _faults(check)[0].startswith(f"{manifest}: damaged")
    assert _mix(pipeline)["rewritten"] is True
    assert manifest.read_bytes() == content
    assert checked(pipeline, CHECK).passed


def test_what_a_run_killed_before_its_clean_up_left_is_a_warning_until_the_next_materialization(
    pipeline: Pipeline,
) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], env=os.environ, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL
    check = checked(pipeline, CHECK)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert _faults(check) == []
    assert _mix(pipeline, seed=9)["rewritten"] is False
    assert checked(pipeline, CHECK).passed
    manifest = json.loads((_directory(pipeline) / "manifest.json").read_bytes())
    named = {Path(file["path"]).name for file in manifest["files"]}
    assert {path.name for path in _directory(pipeline).iterdir()} == {"manifest.json", *named}
