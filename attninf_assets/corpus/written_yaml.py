"""YAML files that people write for us, read with care: what is wrong with one is said by file, line and field."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from attninf_assets.corpus.printable import shortened
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions, filesystem_for
from attninf_assets.store.uris import redacted

__all__ = [
    "DEEPEST",
    "LARGEST_FILE",
    "MOST_ALIASES",
    "WrittenYaml",
    "hint",
    "read_yaml",
    "require_no_problems",
    "shown",
]

# Of a file. The corpus file has three levels, and five thousand domains take half of that size.
LARGEST_FILE = 1 << 20
DEEPEST = 20
MOST_ALIASES = 100
_MOST_PROBLEMS = 50  # told in one error


@dataclass(frozen=True)
class WrittenYaml:
    """What a YAML file holds."""

    content: Any
    folder: str  # the file's
    repeated_keys: tuple[str, ...]  # problems: keys written twice in one mapping


def read_yaml(path: str, *, what: str, storage_options: StorageOptions = NO_OPTIONS) -> WrittenYaml:
    """Read a YAML file, local or on S3. Raises ValueError naming it, as `what`, where it cannot be read or is none."""
    filesystem, inner_path = filesystem_for(path, storage_options)
    try:
        with filesystem.open_input_stream(inner_path) as stream:
            data = stream.read(LARGEST_FILE + 1)
            if len(data) > LARGEST_FILE:
                raise ValueError(f"{path}: {what} is larger than {LARGEST_FILE:,} bytes; is it one?")
            text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {what} cannot be read: {redacted(error)}") from error
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        content = None if tree is None else loader.construct_document(tree)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, yaml.MarkedYAMLError) and ("://" in text or "@" in text):
            _leave_out_the_lines(error)
        mark = error.problem_mark or error.context_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = "" if mark is None else f"line {mark.line + 1}: "  # first: what follows may be cut
        raise ValueError(f"{path}: {what} is not valid YAML: {where}{shortened(error, lines=True)}") from None
    folder = path.rpartition("/")[0] if "://" in path else os.path.dirname(inner_path)
    return WrittenYaml(content, folder, tuple(_repeated_keys(tree)))


def require_no_problems(path: str, problems: Sequence[str], *, what: str) -> None:
    """Raise one ValueError that names the file and lists the problems, if there are any."""
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        told = [*problems[:_MOST_PROBLEMS], *([f"and {more:,} more"] if more > 0 else [])]
        raise ValueError("\n  ".join([f"{path}: {what} is not valid:", *told]))


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


def hint(written: object, known: Sequence[str]) -> str:
    """What may have been meant, or what there is."""
    near = difflib.get_close_matches(shown(written).strip("'"), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def shown(value: object) -> str:
    """A value as it stands in a message."""
    try:
        return repr(value)
    except ValueError:  # Python's limit on the digits of an integer
        return "a number of too many digits"
