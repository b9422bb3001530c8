"""The scoring engine travels alone to a GPU box."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from attninf_assets import influence

PACKAGE = Path(influence.__path__[0])
MODULES = sorted(PACKAGE.rglob("*.py"))
MAY_IMPORT = {"torch", "transformers", "tokenizers", "numpy", "huggingface_hub", *sys.stdlib_module_names}
ABSENT = [
    "dagster", "dagster_aws", "polars", "duckdb", "deltalake", "pyarrow", "pandas", "matplotlib", "zstandard",
    "attninf_assets.store", "attninf_assets.corpus", "attninf_assets.selector", "attninf_assets.scores",
    "attninf_assets.selection", "attninf_assets.mixture", "attninf_assets.orchestration",
]  # fmt: skip
PROGRAM = """
import importlib, sys
for name in sys.argv[1].split():
    sys.modules[name] = None
for name in sys.argv[2].split():
    importlib.import_module(name)
"""


def _name(module: Path) -> str:
    return ".".join(("attninf_assets", "influence", *module.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def test_the_search_finds_the_modules_of_every_folder() -> None:
    folders = {module.parent.relative_to(PACKAGE).as_posix() for module in MODULES}
    assert folders == {".", "model", "runtime", "acceleration", "verification"}
    assert len(MODULES) > 30


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_a_module_names_nothing_but_torch_transformers_and_numpy(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "."]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            assert name.startswith("attninf_assets.influence.") or name.split(".")[0] in MAY_IMPORT, name


def test_every_module_imports_where_the_rest_of_the_project_is_absent() -> None:
    names = [_name(module) for module in MODULES]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, " ".join(ABSENT), " ".join(names)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
