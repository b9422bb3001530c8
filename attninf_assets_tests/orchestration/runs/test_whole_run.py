"""Every asset in one process, on the planted model: what is done, told, passed over and refused."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.executor.in_process import InProcessExecutor
from typer.testing import CliRunner

from attninf_assets.cli import app
from attninf_assets.definitions import definitions
from attninf_assets.mixture.manifest import Manifest
from attninf_assets.orchestration.display.summary import summary
from attninf_assets.orchestration.runs.whole_run import launchpad_fields, materialize_everything
from attninf_assets_tests.support.pipeline import PROBES, SHARDS, Pipeline, build_pipeline
from attninf_assets_tests.support.processes import attninf_process
from benchmarks.rigs.live import until


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return build_pipeline(tmp_path / "pipeline", monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"ops": PROBES | {"training_corpus": {"config": {"selected_weight": 2.0}}}}))
    return path


def attninf_run(*options: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["run", *map(str, options)])
    return result.exit_code, result.stdout, result.stderr


def test_everything_is_materialized_with_the_configuration_given_and_once_more_nothing_is_scored(
    pipeline: Pipeline, config: Path
) -> None:
    code, out, err = attninf_run("--config", config)
    assert code == 0, err
    assert f"{len(pipeline.rows('documents'))} documents scored" in out
    n = len(pipeline.rows("selected_subset"))
    assert Manifest.read(pipeline.lake.root).selected_weight == 2
    assert n == 15
    assert len(pipeline.rows("retrieval_probes")) == 6
    with dg.DagsterInstance.get() as instance:  # for the UI to show
        assert instance.get_materialized_partitions(dg.AssetKey("attention_influence_scores")) == set(SHARDS)
    code, out, _ = attninf_run("--config", config)
    assert code == 0
    assert "nothing rescored" in out


def test_a_broken_shard_is_passed_over_and_named(pipeline: Pipeline, config: Path) -> None:
    (pipeline.directory / "source/letters/b.parquet").write_bytes(b"PAR1 no more")
    settings = PROBES | {"score_thresholds": {"config": {"min_coverage": 0.9}}}
    config.write_text(yaml.safe_dump({"ops": settings}))
    code, out, err = attninf_run("--config", config)
    assert code == 3
    assert "failed: raw_corpus letters.b: " in err
    assert str(pipeline.directory / "source/letters/b.parquet") in err
    assert set(pipeline.rows("scores")["shard"]) == {"a", "first"}
    assert "notes" in out  # the selection of what is there


@pytest.mark.parametrize("stage", ["selector: ", "scores: shard 2 of 3"])
def test_interrupted_it_ends_at_once_and_run_again_it_goes_on(
    pipeline: Pipeline, config: Path, tmp_path: Path, stage: str
) -> None:
    told = tmp_path / "told"
    with (
        told.open("w") as stream,
        attninf_process("run", "--config", str(config), stderr=stream, stdout=subprocess.DEVNULL) as process,
    ):
        until(stage, lambda: stage in told.read_text() or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, told.read_text()
    lines = told.read_text().splitlines()
    assert lines[-1] == "interrupted: run again, it goes on from what is done"
    assert "selection and mix" not in lines
    code, out, err = attninf_run("--config", config)
    assert code == 0, err
    assert len(pipeline.rows("scores")) == len(pipeline.rows("documents"))
    assert "domain" in out


def test_where_nothing_can_be_indexed_the_run_ends_there(pipeline: Pipeline, config: Path) -> None:
    for file in (pipeline.directory / "source").glob("*/*"):
        file.write_bytes(b"")
    code, out, err = attninf_run("--config", config)
    assert code == 3
    assert err.count("failed: ") == len(SHARDS)
    assert "domain" not in out


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("ops: {score_thresholds: {config: {fraction: 0.1}}}", '"fraction" at path root:ops:score_thresholds:config'),
        ("ops: {score_thresholds: {config: {min_coverage: much}}}", '"much"'),
        ("ops: {scores: {config: {}}}", "ops.scores: no asset of this run; it has raw_corpus, selector_model"),
        ("resources: {}", "resources: unknown"),
        ("ops: [1]", "ops: [1] is no mapping"),
        ("ops: {score_thresholds: 3}", "root:ops:score_thresholds"),
        ("- 1", "run.yaml: [1] is no run configuration"),
        ("ops: {", "run.yaml: no YAML"),
    ],
)
def test_a_wrong_configuration_stops_it_before_anything_is_done(
    pipeline: Pipeline, config: Path, written: str, said: str
) -> None:
    config.write_text(written)
    code, _, err = attninf_run("--config", config)
    assert code == 2
    assert said in err
    assert not pipeline.lake.root.exists("tables")


@pytest.mark.parametrize(("home", "said"), [(None, "is not set"), ("relative", "is 'relative', no absolute path")])
def test_without_a_place_for_the_run_history_nothing_is_begun(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, home: str | None, said: str
) -> None:
    if home is None:
        monkeypatch.delenv("DAGSTER_HOME")
    else:
        monkeypatch.setenv("DAGSTER_HOME", home)
    code, _, err = attninf_run()
    assert code == 2
    assert err == f"attninf run: DAGSTER_HOME {said}" + err.partition(said)[2]
    assert len(err.splitlines()) == 1
    assert not pipeline.lake.root.exists("tables")


def test_the_fields_printed_are_a_configuration_that_changes_nothing(pipeline: Pipeline) -> None:
    code, out, _ = attninf_run("--fields")
    assert code == 0
    assert out == launchpad_fields(definitions())
    fields = yaml.safe_load(out)["ops"]
    assert {"n_probes", "probe_tokens", "seed"} <= set(fields["retrieval_probes"]["config"])
    said: list[str] = []
    fields["retrieval_probes"] = PROBES["retrieval_probes"]
    with dg.DagsterInstance.get() as instance:
        came = materialize_everything(definitions(), instance, run_config={"ops": fields}, say=said.append)
    assert not came.failed
    assert set(pipeline.rows("thresholds")["fraction"]) == {0.2}
    assert "retrieval heads: " in summary(pipeline.lake, n_scored=came.n_scored, seconds=1)


def test_the_page_on_headless_runs_shows_every_field() -> None:
    page = Path("docs/headless.md").read_text(encoding="utf-8")
    assert f"```yaml\n{launchpad_fields(definitions())}```" in page


@pytest.mark.parametrize(("ends_by", "code"), [(KeyboardInterrupt(), 130), (RuntimeError("no place left"), 3)])
def test_a_run_that_ends_outside_of_its_steps_is_no_success(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, ends_by: BaseException, code: int
) -> None:
    def execute(*_: object) -> Iterator[dg.DagsterEvent]:
        raise ends_by
        yield

    monkeypatch.setattr(InProcessExecutor, "execute", execute)
    found, _, err = attninf_run()
    assert found == code
    assert ("failed: raw_corpus letters.a: RuntimeError: no place left" in err) == (code == 3)
