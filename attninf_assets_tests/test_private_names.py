"""Private names of other libraries stand on one page each, where a new version is held against them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import attninf_assets

PACKAGE = Path(attninf_assets.__path__[0])
PAGES = {
    "dagster": "orchestration/runs/dagster_internals.py",
    "torch": "influence/acceleration/torch_internals.py",
}
OURS = "attninf_assets"


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(source: str) -> Iterator[tuple[str, str]]:
    """(library, private name) of each import of one, and of each attribute looked up on a name that was imported.

    A library's name for what only its own packages may use counts as well: dagster_shared is Dagster's.
    """
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.asname or alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        for full, local in names:
            library = full.split(".")[0]
            if library in (OURS, "__future__"):
                continue
            imported[local] = library
            if any(map(_private, full.split("."))) or library == "dagster_shared":
                yield library.removesuffix("_shared"), full
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _private(node.attr):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in imported:
                yield imported[root.id], f"{root.id}...{node.attr}"


def test_no_module_uses_a_private_name_of_a_library_but_the_page_for_it() -> None:
    found = {
        (library, module.relative_to(PACKAGE).as_posix(), name)
        for module in sorted(PACKAGE.rglob("*.py"))
        for library, name in private_names(module.read_text())
    }
    elsewhere = [use for use in found if PAGES.get(use[0]) != use[1]]
    assert not elsewhere
    assert {(library, page) for library, page, _ in found} == set(PAGES.items()), "both pages are needed, and are found"


@pytest.mark.parametrize(
    "source",
    [
        "from dagster._core.launcher import WorkerStatus",
        "import dagster._core.launcher",
        "from dagster import _check",
        "from dagster_shared.serdes import whitelist_for_serdes",
        "import torch\ntorch._scaled_mm(1)",
        "import torch as t\nt.ops.mkldnn._linear_pointwise(1)",
        "def later():\n    from torch._dynamo import reset",
    ],
)
def test_the_search_sees_a_private_name_however_it_is_reached(source: str) -> None:
    assert [library for library, _ in private_names(source)] in (["dagster"], ["torch"])
