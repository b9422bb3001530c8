"""The corpus file: which domains there are, and where their files lie."""

import os
from dataclasses import dataclass

import yaml

from attninf_assets.corpus.documents import LONGEST_NAME, NAME
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions, filesystem_for, join, split_glob

__all__ = ["FORMATS", "CorpusConfig", "DomainSource", "load_corpus_config"]

FORMATS = ("parquet", "jsonl", "jsonl.zst", "jsonl.gz")
_REQUIRED = ("files", "format")
_OPTIONAL = ("text_column", "id_column")


@dataclass(frozen=True)
class DomainSource:
    """One domain of the corpus file."""

    domain: str
    files: str  # the glob as it was written
    root: str  # its fixed prefix, a folder: absolute local path, s3://… or hf://…
    pattern: str  # the rest of the glob, relative to root
    format: str
    text_column: str
    id_column: str | None


@dataclass(frozen=True)
class CorpusConfig:
    """A valid corpus file."""

    path: str
    domains: tuple[DomainSource, ...]


def load_corpus_config(
    path_or_uri: str | os.PathLike[str], *, storage_options: StorageOptions = NO_OPTIONS
) -> CorpusConfig:
    """Read and validate the corpus file, all of it, before any work.

    Raises one ValueError that names the file and lists every problem by field and offending value.
    """
    path = os.fspath(path_or_uri)
    filesystem, inner_path = filesystem_for(path, storage_options)
    try:
        with filesystem.open_input_stream(inner_path) as stream:
            text = stream.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: the corpus file cannot be read: {error}") from error
    try:
        tree, content = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the corpus file is not valid YAML: {error}") from error
    problems = _repeated_keys(tree)
    domains = _domains(
        content, folder=path.rpartition("/")[0] if "://" in path else os.path.dirname(inner_path), problems=problems
    )
    if problems:
        raise ValueError(
            "\n".join([f"{path}: the corpus file is not valid:", *(f"  {problem}" for problem in problems)])
        )
    return CorpusConfig(path=path, domains=tuple(domains))


def _repeated_keys(node: yaml.Node | None, field: str = "") -> list[str]:
    """Keys written twice in one mapping; PyYAML itself keeps the last one in silence."""
    if not isinstance(node, yaml.MappingNode):
        return []
    problems: list[str] = []
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        inner = f"{field}.{name}" if field else name
        if name in lines:
            problems.append(f"{inner}: written twice, in lines {lines[name]} and {line}")
        lines.setdefault(name, line)
        if value is not node and field.count(".") < 2:
            problems += _repeated_keys(value, inner)
    return problems


def _domains(content: object, *, folder: str, problems: list[str]) -> list[DomainSource]:
    if not isinstance(content, dict):
        problems.append(f"domains: missing; the file holds {content!r} where a mapping with 'domains' is needed")
        return []
    problems += [f"{key}: unknown key; the only one is 'domains'" for key in content if key != "domains"]
    domains = content.get("domains")
    if not isinstance(domains, dict) or not domains:
        given = repr(domains) if "domains" in content else "missing"
        problems.append(f"domains: {given}, where a mapping of at least one domain is needed")
        return []
    return [
        source
        for name, entry in domains.items()
        if (source := _domain(name, entry, folder=folder, problems=problems)) is not None
    ]


def _domain(name: object, entry: object, *, folder: str, problems: list[str]) -> DomainSource | None:
    field = f"domains.{name}"
    found: list[str] = []
    if not isinstance(name, str):
        found.append(f"{field}: the domain's name {name!r} is not a string; put it in quotes")
    elif not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        found.append(f"{field}: the domain's name {name!r} is not made of a-z, 0-9, _ and - ({LONGEST_NAME} at most)")
    if not isinstance(entry, dict):
        problems += [*found, f"{field}: {entry!r}, where a mapping with 'files' and 'format' is needed"]
        return None
    known = (*_REQUIRED, *_OPTIONAL)
    found += [f"{field}.{key}: unknown key; known are {', '.join(known)}" for key in entry if key not in known]
    found += [f"{field}.{key}: missing" for key in _REQUIRED if key not in entry]
    given = {key: value for key, value in entry.items() if isinstance(value, str) and value.strip()}
    found += [
        f"{field}.{key}: {entry[key]!r} is not a non-empty string" for key in known if key in entry and key not in given
    ]
    if given.get("format", "parquet") not in FORMATS:
        found.append(f"{field}.format: {given['format']!r} is not one of {', '.join(FORMATS)}")
    if "files" in given and (complaint := _complaint_about_glob(given["files"])):
        found.append(f"{field}.files: {given['files']!r} {complaint}")
    text_column, id_column = given.get("text_column", "text"), given.get("id_column")
    if id_column == text_column:
        found.append(f"{field}.id_column: {id_column!r} is the text column")
    if found:
        problems += found
        return None
    root, pattern = _absolute_glob(given["files"], folder=folder)
    return DomainSource(
        domain=str(name),
        files=given["files"],
        root=root,
        pattern=pattern,
        format=given["format"],
        text_column=text_column,
        id_column=id_column,
    )


def _complaint_about_glob(files: str) -> str | None:
    scheme, separator, rest = files.partition("://")
    if separator and scheme not in {"s3", "hf"}:
        return f"has the scheme {scheme!r}; give a local path, s3://… or hf://…"
    fixed_parts = {"s3": 1, "hf": 3}.get(scheme, 0) if separator else 0
    if len([part for part in split_glob(rest)[0].split("/") if part]) < fixed_parts:
        return (
            "needs its " + {"s3": "bucket", "hf": "repository (hf://datasets/organisation/name/…)"}[scheme] + " in full"
        )
    if files.endswith("/"):
        return "is a folder; name its files, as in 'folder/*.parquet'"
    return None


def _absolute_glob(files: str, *, folder: str) -> tuple[str, str]:
    root, pattern = split_glob(files if "://" in files else os.path.expanduser(files))
    if "://" in root:
        return root, pattern
    if "://" in folder and not root.startswith("/"):
        return join(folder, root) if root else folder, pattern
    return os.path.normpath(os.path.join(folder, root)), pattern
