"""What the pages say about the project is compared with the project."""

import ast
import importlib
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import networkx
import pytest
import yaml

from attninf_assets.definitions import definitions

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_readme_is_short_and_names_the_test_command_of_continuous_integration() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 130
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec make test"
    assert "make test" in _code(readme, "sh")


def test_the_tree_of_the_architecture_page_is_the_package_on_disk() -> None:
    listing, *_ = _code((ROOT / "docs/architecture.md").read_text(), "text").split("\0")
    listed = list(_listed(listing.splitlines()))
    package = ROOT / "attninf_assets"
    modules = {path for path in package.rglob("*.py") if path.name != "__init__.py"}
    folders = {path.parent for path in package.rglob("*.py")}
    on_disk = {str(path.relative_to(ROOT)) for path in modules | folders}
    assert len(listed) == len(set(listed)), "listed twice"
    assert set(listed) == on_disk


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_every_internal_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_without_code(page.read_text())):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`([\w./-]+/[\w-]+\.(?:py|md|toml|yaml))`", page.read_text())
    roots = (ROOT, ROOT / "attninf_assets")
    assert not [name for name in named if not any((root / name).exists() for root in roots)]


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_every_import_that_a_page_shows_works(page: Path) -> None:
    missing = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(_code(page.read_text(), "python").replace("\0", "\n")))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("attninf_assets.")
        for alias in node.names
        if not hasattr(importlib.import_module(node.module), alias.name)
    ]
    assert not missing


def test_changelog_citation_and_package_are_of_one_version() -> None:
    changelog = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert changelog[0] == citation["version"] == project["version"]
    assert citation["license"] == project["license"] == "Apache-2.0"


def test_new_import_paths_in_the_changelog_exist() -> None:
    table = (ROOT / "CHANGELOG.md").read_text().partition("### Import paths")[2]
    new = [line.split("|")[2].partition(":")[0] for line in table.splitlines() if line.startswith("| `")]
    paths = [path for cell in new for path in re.findall(r"`([\w.]+?)(?:\.\*)?`", cell)]
    assert len(paths) > 40
    assert not [path for path in paths if importlib.util.find_spec(f"attninf_assets.{path}") is None]


@pytest.mark.parametrize("picture", ["README.md", "docs/pictures/asset_graph.svg"])
def test_the_picture_shows_the_asset_graph_without_the_edges_that_follow_from_others(picture: str) -> None:
    text = (ROOT / picture).read_text()
    drawn = set(_mermaid_edges(_code(text, "mermaid"))) if picture.endswith(".md") else set(_svg_edges(text))
    shown = {name for edge in drawn for name in edge}
    graph = networkx.DiGraph(
        (dep.asset_key.to_user_string(), spec.key.to_user_string())
        for spec in definitions().resolve_all_asset_specs()
        for dep in spec.deps
    )
    assert len(shown) == 10
    assert drawn == set(networkx.transitive_reduction(graph.subgraph(shown)).edges)


def _code(markdown: str, language: str) -> str:
    """The page's fenced blocks in that language, with a null character between."""
    return "\0".join(body for name, body in _FENCED.findall(markdown) if name == language)


def _without_code(markdown: str) -> str:
    return re.sub(r"`[^`\n]*`", "", _FENCED.sub("", markdown))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def _listed(lines: list[str]) -> Iterator[str]:
    """The paths of a listing whose depth is its indentation, two spaces a folder."""
    folders: list[str] = []
    for line in lines:
        name = line.split()[0]
        del folders[(len(line) - len(line.lstrip())) // 2 :]
        yield "/".join([*folders, name.rstrip("/")])
        if name.endswith("/"):
            folders.append(name.rstrip("/"))


def _mermaid_edges(graph: str) -> Iterator[tuple[str, str]]:
    for line in graph.splitlines():
        names = [re.match(r"\w+", name.strip()) for name in line.split("-->")]
        found = [name.group() for name in names if name is not None]
        yield from pairwise(found)


def _svg_edges(svg: str) -> Iterator[tuple[str, str]]:
    yield from re.findall(r'data-edge="(\w+) (\w+)"', svg)
