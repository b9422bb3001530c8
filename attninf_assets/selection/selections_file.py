"""The selections file: named selections, read and validated whole."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

from attninf_assets.corpus.documents import LONGEST_NAME, NAME
from attninf_assets.corpus.printable import shortened
from attninf_assets.corpus.written_yaml import hint, read_yaml, require_no_problems, shown
from attninf_assets.selection.definitions import (
    EXCLUDE,
    PAPER,
    Budget,
    DomainRule,
    Keep,
    Order,
    SelectionDefinition,
    Written,
)
from attninf_assets.store.filesystems import NO_OPTIONS, StorageOptions

__all__ = ["Selections", "read_selections"]

_WHAT = "the selections file"
_WORDS = {  # for what pydantic says in Python's terms
    "model_type": "not a mapping",
    "dict_type": "not a mapping",
    "too_short": "no selection in it",
    "string_type": "not a string; put it in quotes",
    "int_type": "not a whole number",
    "float_type": "not a number",
    "string_pattern_mismatch": "not a name; it is made of a-z, 0-9, _ and -",
    "union_tag_not_found": "neither `exclude` nor a mapping",
}


class _SelectionsFile(Written):
    selections: dict[
        Annotated[str, Field(pattern=f"^{NAME.pattern}$", max_length=LONGEST_NAME)], SelectionDefinition
    ] = Field(min_length=1)
    mix: str | None = None


@dataclass(frozen=True)
class Selections:
    """The selections that are defined, and where."""

    place: str  # the file, or what stands for it
    definitions: Mapping[str, SelectionDefinition]
    mixed: str  # the one that the training corpus repeats

    def named(self, name: str) -> SelectionDefinition:
        """The selection of that name. Raises ValueError naming it, the file and what the file has."""
        if name not in self.definitions:
            raise ValueError(
                f"selection {name!r}: {self.place} does not define it; {hint(name, list(self.definitions))}"
            )
        return self.definitions[name]

    def require_domains(self, name: str, known: Collection[str]) -> None:
        """Raise ValueError where the selection names a domain that there is not, or excludes every one there is."""
        definition = self.named(name)
        for domain in definition.domains:
            if domain not in known:
                raise ValueError(
                    f"{self.place}: selections.{name}.domains.{shortened(domain)}: no such domain; "
                    f"{hint(domain, sorted(known))}"
                )
        if known and all(definition.excludes(domain) for domain in known):
            raise ValueError(f"{self.place}: selections.{name}.domains: every domain is excluded, nothing is left")


def read_selections(path: str | os.PathLike[str] | None, *, storage_options: StorageOptions = NO_OPTIONS) -> Selections:
    """Read and validate the selections file, all of it; without one there is the paper's selection.

    Raises one ValueError that names the file and lists every problem by field and offending value.
    """
    if path is None:
        return Selections("no selections file (ATTNINF_SELECTIONS), which", {PAPER: SelectionDefinition()}, PAPER)
    path = os.fspath(path)
    written = read_yaml(path, what=_WHAT, storage_options=storage_options)
    problems = list(written.repeated_keys)
    try:
        file = _SelectionsFile.model_validate(written.content)
    except ValidationError as error:
        problems += [_problem(details) for details in error.errors()]
    else:
        problems += _problem_of_mix(file)
    require_no_problems(path, problems, what=_WHAT)
    return Selections(path, file.selections, _mixed(file))


def _mixed(file: _SelectionsFile) -> str:
    """The file's `mix`, else `paper`, else the first: where that leaves it open the file is refused."""
    return file.mix or (PAPER if PAPER in file.selections else next(iter(file.selections)))


def _problem_of_mix(file: _SelectionsFile) -> list[str]:
    names = list(file.selections)
    if file.mix is None:
        is_open = PAPER not in names and len(names) > 1
        return [f"mix: missing; which is the training corpus to repeat: {', '.join(names)}?"] if is_open else []
    return (
        [] if file.mix in names else [f"mix: {shortened(shown(file.mix))}: no such selection; {hint(file.mix, names)}"]
    )


def _problem(details: ErrorDetails) -> str:
    """One of pydantic's findings, in the words of the file."""
    loc = [str(part) for part in details["loc"] if part != "[key]"]
    if len(loc) > 4 and loc[2] == "domains":
        del loc[4]  # the tag of what stands for the domain
    field, kind = shortened(".".join(loc) or "the file"), details["type"]
    if kind == "missing":
        return f"{field}: missing"
    if kind == "extra_forbidden":
        return f"{field}: unknown key; {hint(loc[-1], _keys_beside(loc))}"
    value = "empty" if details["input"] is None else shortened(shown(details["input"]))
    if kind == "literal_error":
        choices = {"order": get_args(Order), "of": get_args(Budget)}.get(loc[-1], (EXCLUDE,))
        return f"{field}: {value}: {hint(details['input'], choices)}"
    reason: Any = details.get("ctx", {}).get("error")
    return f"{field}: {value}: {_WORDS.get(kind) or shortened(reason or details['msg'])}"


def _keys_beside(loc: list[str]) -> list[str]:
    """The keys that there may be where one was not known."""
    if len(loc) == 1:
        return list(_SelectionsFile.model_fields)
    if len(loc) == 3:
        return list(SelectionDefinition.model_fields)
    return list((DomainRule if loc[2] == "domains" else Keep).model_fields)
