"""The whole project with its root and its sources on S3, and no secret anywhere in what it tells."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster import DagsterEventType

from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.pipeline import SHARDS, Pipeline, build_pipeline


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_root: Root) -> Iterator[Pipeline]:
    """The small corpus and everything made of it under one prefix of the bucket; credentials from the environment."""
    local = build_pipeline(tmp_path, monkeypatch)
    for path in sorted((tmp_path / "source").rglob("*.*")):
        s3_root.write_bytes(str(path.relative_to(tmp_path)), path.read_bytes())
        path.unlink()
    corpus = yaml.safe_load((tmp_path / "corpus.yaml").read_text())
    for domain in corpus["domains"].values():
        domain["files"] = f"{s3_root.uri}/{domain['files']}"
    (tmp_path / "corpus.yaml").write_text(yaml.safe_dump(corpus))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # the cache of pinned models
    monkeypatch.setenv("ATTNINF_ROOT", f"{s3_root.uri}/root")
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, s3_root.storage_options[name])
    monkeypatch.setenv("AWS_DEFAULT_REGION", s3_root.storage_options["AWS_REGION"])
    with dg.DagsterInstance.local_temp() as instance:
        instance.add_dynamic_partitions("corpus_shards", SHARDS)
        instance.add_dynamic_partitions("selections", ["paper"])
        yield Pipeline(tmp_path, Lake(Root.at(f"{s3_root.uri}/root", s3_root.storage_options)), instance, monkeypatch)
    assert local.lake.version("documents") is None


def test_everything_lies_on_s3_and_no_secret_is_told(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = pipeline.lake.root
    secret = root.storage_options["AWS_SECRET_ACCESS_KEY"]
    pipeline.run_everything()
    assert pipeline.rows("thresholds").sort("domain").select("domain", "n_selected").rows() == [
        ("letters", 10),
        ("notes", 5),
    ]
    manifest = json.loads(root.read_bytes("training_corpus/manifest.json"))
    assert sum(file["rows"] for file in manifest["files"]) == 75 + 15
    versions = {name: pipeline.lake.version(name) for name in ("documents", "scores")}
    for key in SHARDS:
        pipeline.run(["raw_corpus", "attention_influence_scores"], key)
    assert {name: pipeline.lake.version(name) for name in versions} == versions
    pipeline.run(["lake_maintenance"])

    monkeypatch.setattr("attninf_assets.orchestration.runs.retries.FIRST_PAUSE", 0)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{secret}-that-is-wrong")
    failed = pipeline.run(["raw_corpus"], SHARDS[0], raise_on_error=False)
    assert not failed.success

    told = "".join(str(pipeline.rows(name).to_dict(as_series=False)) for name in TABLES)
    told += "".join(f"{path}{root.read_bytes(path)!r}" for path in root.list("tables") if path.endswith(".json"))
    runs = pipeline.instance.get_runs()
    events = [event for run in runs for event in pipeline.instance.all_logs(run.run_id)]
    assert any(event.dagster_event_type == DagsterEventType.STEP_FAILURE for event in events)
    told += "".join(f"{event.to_json()}{event!r}" for event in events)
    told += "".join(str(run.run_config) + str(run.tags) for run in runs)
    told += "".join(capfd.readouterr())
    for path in Path(pipeline.instance.root_directory).rglob("*"):
        if path.is_file():
            told += path.read_bytes().decode(errors="replace")
    assert len(runs) > 10
    assert "tables/documents" in told
    assert secret not in told
