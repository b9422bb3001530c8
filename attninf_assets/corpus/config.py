"""The corpus file: which domains there are, and where their files lie."""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from attninf_assets.corpus.documents import LONGEST_NAME, NAME
from attninf_assets.corpus.printable import shortened
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions, filesystem_for, join, split_glob
from attninf_assets.store.uris import SecretInUriError, redacted, require_no_secret

__all__ = ["FORMATS", "CorpusConfig", "DomainSource", "Glob", "load_corpus_config"]

# Of a corpus file. It has three levels, and five thousand domains take half of that size.
LARGEST_FILE = 1 << 20
DEEPEST = 20
MOST_ALIASES = 100
_MOST_PROBLEMS = 50  # told in one error
_LONGEST_LOCAL_NAME, _LONGEST_LOCAL_PATH = 255, 4095  # bytes; the system refuses longer ones

Format = Literal["parquet", "jsonl", "jsonl.zst", "jsonl.gz"]
FORMATS: tuple[str, ...] = get_args(Format)
_WORDS = {  # for what pydantic says in Python's terms
    "model_type": "not a mapping",
    "dict_type": "not a mapping",
    "too_short": "no domain in it",
    "string_type": "not a string; put it in quotes",
    "bool_type": "neither true nor false",
    "string_pattern_mismatch": "not a domain's name; it is made of a-z, 0-9, _ and -",
}
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_MOST_ALTERNATIVES = 1_000  # of one glob
_FIXED_PARTS = {"s3": (1, "bucket"), "hf": (3, "repository (hf://datasets/organisation/name/…)")}


@dataclass(frozen=True)
class Glob:
    """A glob by which files of a domain are known, cut into a folder and patterns below it."""

    written: str
    root: str  # its fixed prefix, a folder: absolute local path, s3://… or hf://…
    patterns: tuple[str, ...]  # the rest of it, relative to root, once for each alternative in braces


def _globs(written: object, info: ValidationInfo) -> tuple[Glob, ...]:
    """One glob, or a list of them."""
    if isinstance(written, tuple):
        return written
    if not isinstance(written, list):
        return (_glob(written, info),)
    if not written:
        raise ValueError("no glob in it")
    globs = []
    for one in written:
        try:
            globs.append(_glob(one, info))
        except SecretInUriError:
            raise
        except ValueError as error:
            raise ValueError(f"{_written(one)}: {error}") from None
    return tuple(globs)


def _cut(written: str) -> tuple[str, tuple[str, ...]]:
    """The fixed prefix of a glob, a folder, and the patterns that the rest of it stands for, braces spelled out."""
    braces = _BRACES.search(written)
    if braces is None:
        root, pattern = split_glob(written)
        return root, (pattern,)
    root, _ = split_glob(written[: written.index("{")] + "*")
    patterns = [written[len(root) :].lstrip("/")]
    while any(found := [_BRACES.search(pattern) for pattern in patterns]):
        spelled = [
            [pattern]
            if match is None
            else [f"{pattern[: match.start()]}{one}{pattern[match.end() :]}" for one in match[1].split(",")]
            for pattern, match in zip(patterns, found, strict=True)
        ]
        patterns = list(dict.fromkeys(pattern for alternatives in spelled for pattern in alternatives))
        if len(patterns) > _MOST_ALTERNATIVES:
            raise ValueError(f"stands for more than {_MOST_ALTERNATIVES:,} globs")
    return root, tuple(patterns)


def _glob(written: object, info: ValidationInfo) -> Glob:
    """Relative ones begin at the folder of the corpus file, which the validation's context names."""
    if not isinstance(written, str) or not written.strip():
        raise ValueError("not a glob")
    require_no_secret(written)
    scheme, is_uri, rest = written.partition("://")
    if is_uri and scheme not in _FIXED_PARTS:
        raise ValueError(f"has the scheme {shortened(repr(scheme), most=50)}; give a local path, s3://… or hf://…")
    n_fixed, what = _FIXED_PARTS[scheme] if is_uri else (0, "")
    if len([part for part in (_cut(rest)[0] if is_uri else "").split("/") if part]) < n_fixed:
        raise ValueError(f"needs its {what} in full")
    if written.endswith("/"):
        raise ValueError("is a folder; name its files, as in 'folder/*.parquet'")
    root, patterns = _cut(written if is_uri else os.path.expanduser(written))
    if not is_uri:
        folder: str = (info.context or {})["folder"]
        is_below = "://" in folder and not root.startswith("/")
        root = join(folder, root).rstrip("/") if is_below else os.path.normpath(os.path.join(folder, root))
        if "://" not in root:
            _require_possible(root)
    return Glob(written, root, patterns)


def _one_format(format: str, info: ValidationInfo) -> str:
    for glob in info.data.get("files", ()):
        for pattern in glob.patterns:
            named = max((known for known in FORMATS if pattern.endswith(f".{known}")), key=len, default=format)
            if named != format:
                raise ValueError(
                    f"{shortened(repr(pattern))} names {named} files; a domain has one format: make another of these"
                )
    return format


def _require_possible(folder: str) -> None:
    """Raise ValueError for a local folder that no system could have."""
    if "\0" in folder or any("\ud800" <= character <= "\udfff" for character in folder):
        raise ValueError("holds a character that no path may hold")
    if len(os.fsencode(folder)) > _LONGEST_LOCAL_PATH:
        raise ValueError(f"is longer than any path, {_LONGEST_LOCAL_PATH:,} bytes")
    if any(len(os.fsencode(name)) > _LONGEST_LOCAL_NAME for name in folder.split("/")):
        raise ValueError(f"has a part that is longer than any name, {_LONGEST_LOCAL_NAME} bytes")


def _column(name: str | None, info: ValidationInfo) -> str | None:
    if name is None or not name.strip():
        raise ValueError("not a column's name")
    if name == info.data.get("text_column"):
        raise ValueError("is the text column")
    return name


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DomainSource(_Written):
    """One domain of the corpus file."""

    files: Annotated[tuple[Glob, ...], BeforeValidator(_globs)]
    format: Annotated[Format, AfterValidator(_one_format)]
    text_column: Annotated[str, AfterValidator(_column)] = "text"
    id_column: Annotated[str | None, AfterValidator(_column)] = None
    may_be_empty: bool = False

    @property
    def written(self) -> str:
        """The globs as they are written, for messages."""
        return ", ".join(repr(glob.written) for glob in self.files)


class _CorpusFile(_Written):
    domains: dict[Annotated[str, Field(pattern=f"^{NAME.pattern}$", max_length=LONGEST_NAME)], DomainSource] = Field(
        min_length=1
    )


@dataclass(frozen=True)
class CorpusConfig:
    """A valid corpus file."""

    path: str
    domains: Mapping[str, DomainSource]


class _Loader(yaml.SafeLoader):
    """Refuses YAML that would grow as it is used: nested deeply, or with many or nested aliases; always by line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._anchored: list[bool] = []  # of what is being composed, from the outermost inwards
        self._n_aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As PyYAML's."""
        event, problem = self.peek_event(), None
        if isinstance(event, yaml.AliasEvent):
            self._n_aliases += 1
            if any(self._anchored):
                problem = "an alias within what an anchor names"
            elif self._n_aliases > MOST_ALIASES:
                problem = f"more than {MOST_ALIASES} aliases"
        elif len(self._anchored) > DEEPEST:
            problem = f"nested more than {DEEPEST} deep"
        if problem is not None:
            raise ValueError(f"line {event.start_mark.line + 1}: {problem}")
        self._anchored.append(event.anchor is not None)
        try:
            return super().compose_node(parent, index)
        finally:
            self._anchored.pop()

    def fetch_more_tokens(self) -> None:
        """As PyYAML's, which takes an escape for a character that there is not."""
        try:
            super().fetch_more_tokens()
        except ValueError as error:
            raise ValueError(f"line {self.line + 1}: {error}") from error

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As PyYAML's, which fails in several ways on a scalar that is not what its tag or its looks say."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError) as error:
            if not isinstance(node, yaml.ScalarNode):
                raise
            kind = node.tag.rpartition(":")[2]
            value = shortened(redacted(repr(node.value)))
            raise ValueError(f"line {node.start_mark.line + 1}: {value}: not a valid {kind}") from error


def _leave_out_the_lines(error: yaml.MarkedYAMLError) -> None:
    """Pieces of lines, in which a URI with credentials may no longer be known for one: syntax is what is broken."""
    for mark in (error.context_mark, error.problem_mark):
        if mark is not None:
            mark.buffer = None


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
            data = stream.read(LARGEST_FILE + 1)
            if len(data) > LARGEST_FILE:
                raise ValueError(f"{path}: the corpus file is larger than {LARGEST_FILE:,} bytes; is it one?")
            text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: the corpus file cannot be read: {redacted(error)}") from error
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        content = None if tree is None else loader.construct_document(tree)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, yaml.MarkedYAMLError) and ("://" in text or "@" in text):
            _leave_out_the_lines(error)
        mark = error.problem_mark or error.context_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = "" if mark is None else f"line {mark.line + 1}: "  # first: what follows may be cut
        shown = shortened(error, lines=True)
        raise ValueError(f"{path}: the corpus file is not valid YAML: {where}{shown}") from None
    problems = _repeated_keys(tree)
    folder = path.rpartition("/")[0] if "://" in path else os.path.dirname(inner_path)
    try:
        file = _CorpusFile.model_validate(content, context={"folder": folder})
    except ValidationError as error:
        problems += [_problem(details) for details in error.errors()]
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        told = [*problems[:_MOST_PROBLEMS], *([f"and {more:,} more"] if more > 0 else [])]
        raise ValueError("\n  ".join([f"{path}: the corpus file is not valid:", *told]))
    return CorpusConfig(path, file.domains)


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
            problems.append(f"{shortened(inner)}: written twice, in lines {lines[name]} and {line}")
        lines.setdefault(name, line)
        if value is not node and field.count(".") < 2:
            problems += _repeated_keys(value, inner)
    return problems


def _problem(details: ErrorDetails) -> str:
    """One of pydantic's findings, in the words of the file."""
    *parents, name = [part for part in details["loc"] if part != "[key]"] or ["the file"]
    field, kind = shortened(".".join(map(str, [*parents, name]))), details["type"]
    if kind == "missing":
        return f"{field}: missing"
    if kind == "extra_forbidden":
        known = list((DomainSource if parents else _CorpusFile).model_fields)
        return f"{field}: unknown key; {_hint(name, known)}"
    reason = details.get("ctx", {}).get("error")
    if isinstance(reason, SecretInUriError):
        return f"{field}: {shortened(reason)}"
    value = "empty" if details["input"] is None else shortened(redacted(_written(details["input"])))
    if kind == "literal_error":
        return f"{field}: {value}: not a format; {_hint(details['input'], FORMATS)}"
    return f"{field}: {value}: {_WORDS.get(kind) or shortened(reason or details['msg'])}"


def _hint(written: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(_written(written).strip("'"), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _written(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python's limit on the digits of an integer
        return "a number of too many digits"
