"""The corpus file: which domains there are, and where their files lie."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from attninf_assets.corpus.documents import LONGEST_NAME, NAME
from attninf_assets.corpus.printable import shortened
from attninf_assets.corpus.written_yaml import hint, read_yaml, require_no_problems, shown
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions, join, split_glob
from attninf_assets.store.uris import SecretInUriError, redacted, require_no_secret

__all__ = ["FORMATS", "CorpusConfig", "DomainSource", "Glob", "load_corpus_config"]

_WHAT = "the corpus file"
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
            raise ValueError(f"{shown(one)}: {error}") from None
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


def load_corpus_config(
    path_or_uri: str | os.PathLike[str], *, storage_options: StorageOptions = NO_OPTIONS
) -> CorpusConfig:
    """Read and validate the corpus file, all of it, before any work.

    Raises one ValueError that names the file and lists every problem by field and offending value.
    """
    path = os.fspath(path_or_uri)
    written = read_yaml(path, what=_WHAT, storage_options=storage_options)
    problems = list(written.repeated_keys)
    try:
        file = _CorpusFile.model_validate(written.content, context={"folder": written.folder})
    except ValidationError as error:
        problems += [_problem(details) for details in error.errors()]
    require_no_problems(path, problems, what=_WHAT)
    return CorpusConfig(path, file.domains)


def _problem(details: ErrorDetails) -> str:
    """One of pydantic's findings, in the words of the file."""
    *parents, name = [part for part in details["loc"] if part != "[key]"] or ["the file"]
    field, kind = shortened(".".join(map(str, [*parents, name]))), details["type"]
    if kind == "missing":
        return f"{field}: missing"
    if kind == "extra_forbidden":
        known = list((DomainSource if parents else _CorpusFile).model_fields)
        return f"{field}: unknown key; {hint(name, known)}"
    reason = details.get("ctx", {}).get("error")
    if isinstance(reason, SecretInUriError):
        return f"{field}: {shortened(reason)}"
    value = "empty" if details["input"] is None else shortened(redacted(shown(details["input"])))
    if kind == "literal_error":
        return f"{field}: {value}: not a format; {hint(details['input'], FORMATS)}"
    return f"{field}: {value}: {_WORDS.get(kind) or shortened(reason or details['msg'])}"
