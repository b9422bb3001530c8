"""Real text that every installation of this project holds, cut into passages: candidates for the sample corpus.

Each function yields (id, text) pairs, always the same ones for the same installed versions; nothing in them depends on
where or when they were gathered.
"""

import ast
import hashlib
import importlib
import importlib.metadata
import inspect
import re
import textwrap
from collections.abc import Iterator

__all__ = ["math_docstrings", "package_readmes", "reference_prose", "stdlib_code"]

_CODE_MODULES = (
    "argparse",
    "bisect",
    "calendar",
    "collections",
    "configparser",
    "csv",
    "difflib",
    "fractions",
    "graphlib",
    "heapq",
    "ipaddress",
    "json.decoder",
    "json.encoder",
    "pprint",
    "random",
    "shlex",
    "statistics",
    "string",
    "textwrap",
    "urllib.parse",
)
_MATH_MODULES = (
    "mpmath",
    "networkx",
    "numpy",
    "numpy.linalg",
    "numpy.polynomial.polynomial",
    "sympy",
    "sympy.stats",
)
_PACKAGES = (
    "click",
    "dagster",
    "deltalake",
    "duckdb",
    "filelock",
    "fsspec",
    "huggingface_hub",
    "Jinja2",
    "matplotlib",
    "mpmath",
    "networkx",
    "numpy",
    "packaging",
    "polars",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "requests",
    "rich",
    "safetensors",
    "sympy",
    "torch",
    "tqdm",
    "transformers",
    "typing_extensions",
    "zstandard",
)
_LICENCE = re.compile(r"(^|/)(licen[cs]e|copying|notice)[^/]*$", re.IGNORECASE)


def stdlib_code() -> Iterator[tuple[str, str]]:
    """Functions, classes and methods of the standard library, as written."""
    for name in _CODE_MODULES:
        source = inspect.getsource(importlib.import_module(name))
        lines = source.splitlines()
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield f"{name}.{node.name}", _lines_of(node, lines)
            if isinstance(node, ast.ClassDef):
                methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
                yield from ((f"{name}.{node.name}.{method.name}", _lines_of(method, lines)) for method in methods)


def _lines_of(node: ast.stmt, lines: list[str]) -> str:
    return textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))


def reference_prose() -> Iterator[tuple[str, str]]:
    """Passages of the language reference, code and grammar left out, paragraphs as single lines."""
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    for topic in sorted(topics):
        paragraphs = [
            _unwrapped(paragraph) for paragraph in re.split(r"\n\s*\n", topics[topic]) if _is_prose(paragraph)
        ]
        yield from _passages(topic, paragraphs)


def math_docstrings() -> Iterator[tuple[str, str]]:
    """Docstrings of mathematical functions, formulas and examples included."""
    for module_name in _MATH_MODULES:
        module = importlib.import_module(module_name)
        package = module_name.partition(".")[0]
        for name in sorted(dir(module)):
            thing = getattr(module, name)
            home = getattr(thing, "__module__", None)
            if callable(thing) and not name.startswith("_") and isinstance(home, str) and home.startswith(package):
                yield f"{module_name}.{name}", inspect.getdoc(thing) or ""


def package_readmes() -> Iterator[tuple[str, str]]:
    """Passages of packages' descriptions and licences, with the boilerplate they come with."""
    installed = {found.metadata["Name"]: found for found in importlib.metadata.distributions()}
    for name in sorted(installed.keys() & set(_PACKAGES)):
        texts = {"readme": str(installed[name].metadata.json.get("description", ""))}
        for path in installed[name].files or []:
            if _LICENCE.search(str(path)) and path.suffix in {"", ".txt", ".md", ".rst"}:
                texts.setdefault(path.name, path.read_text())
        for part, text in sorted(texts.items()):
            yield from _passages(f"{name}/{part}", [p.strip("\n") for p in re.split(r"\n\s*\n", text) if p.strip()])


def _passages(name: str, paragraphs: list[str]) -> Iterator[tuple[str, str]]:
    """Consecutive whole paragraphs, gathered up to a length that the passage's own name decides."""
    gathered: list[str] = []
    n = 0
    for paragraph in [*paragraphs, None]:
        wanted = 250 + int.from_bytes(hashlib.sha256(f"{name}:{n}".encode()).digest()[:2]) % 1400
        if gathered and (paragraph is None or sum(map(len, gathered)) >= wanted):
            yield f"{name}:{n}", "\n\n".join(gathered)
            gathered, n = [], n + 1
        if paragraph is not None:
            gathered.append(paragraph)


def _is_prose(paragraph: str) -> bool:
    """Neither indented, nor a heading, a list, a table or grammar: lines that begin and end as sentences do."""
    stripped = paragraph.strip()
    return (
        bool(re.match(r"[A-Z]", paragraph.lstrip("\n")))
        and stripped.endswith((".", "!", "?"))
        and "::=" not in paragraph
    )


def _unwrapped(paragraph: str) -> str:
    return " ".join(re.sub(r"-\n\s*", "-", paragraph).split())
