"""What a process holds that only knows the definitions, and how processes end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "matplotlib", "duckdb", "huggingface_hub", "pandas", "scipy")
LOADED = "\nimport sys; print(*(name for name in sys.argv[1:] if name in sys.modules))"
IN_ONE_PROCESS = """
import torch  # parts of which outlive the interpreter, and much with them: see attninf_assets.store.query
import dagster as dg
from attninf_assets.definitions import definitions
from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.store.query import connect

@dg.asset
def documents_there(lake: LakeResource) -> int:
    with connect(lake.tables(), "documents") as connection:
        return connection.execute("SELECT count(*) FROM documents").fetchone()[0]

result = dg.materialize([documents_there], resources=definitions().resources)
print(result.output_for_node("documents_there"))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A Dagster home with the project's settings, and storage of its own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")
    paths = {"DAGSTER_HOME": tmp_path / "home", "ATTNINF_ROOT": tmp_path / "data", "ATTNINF_SAMPLE_DIR": tmp_path}
    return os.environ | {"PYTHONPATH": str(ROOT)} | {name: str(path) for name, path in paths.items()}


def run(*command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "program",
    [
        "from attninf_assets.definitions import definitions; definitions().resolve_asset_graph()",
        "import attninf_assets.selector.stored",
        "import attninf_assets.scores.update",
    ],
)
def test_what_computes_is_not_loaded_before_there_is_something_to_compute(
    program: str, environment: dict[str, str]
) -> None:
    done = run(sys.executable, "-c", program + LOADED, *HEAVY, environment=environment)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")


@pytest.mark.parametrize("command", ["list", "check"])
def test_dgs_commands_that_load_the_definitions_have_no_complaint(command: str, environment: dict[str, str]) -> None:
    done = run(str(Path(sys.executable).parent / "dg"), command, "defs", environment=environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_dagsters_own_validation_complains_of_nothing_but_its_age(environment: dict[str, str]) -> None:
    dagster = str(Path(sys.executable).parent / "dagster")
    done = run(dagster, "definitions", "validate", environment=environment)
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if "INFO" not in line and not line.startswith("  ")]
    assert all("`definitions_validate_command` is superseded" in line for line in complaints), done.stderr


def test_a_process_with_torch_and_dagsters_assets_and_duckdb_ends_without_a_leak(environment: dict[str, str]) -> None:
    done = run(sys.executable, "-c", IN_ONE_PROCESS, environment=environment)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    assert "nanobind" not in done.stderr
    assert "leaked" not in done.stderr


def test_a_demo_whose_asset_fails_says_why_and_exits_with_an_error(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "landed").mkdir()
    (tmp_path / "landed" / "a.parquet").write_bytes(b"PAR1 but nothing else")
    corpus = tmp_path / "corpus.yaml"
    corpus.write_text("domains:\n  web:\n    files: landed/*.parquet\n    format: parquet\n")
    environment["ATTNINF_CORPUS"] = str(corpus)
    done = run(sys.executable, "-m", "attninf_assets.demo", environment=environment)
    assert done.returncode == 1
    assert "a.parquet" in done.stderr.splitlines()[-1]
    assert "leaked" not in done.stderr
