import random
from pathlib import Path

import pytest

from attninf_assets_tests.torture import fuzz
from attninf_assets_tests.torture.attempts import Attempt, told
from attninf_assets_tests.torture.fuzz import KINDS, feed, fuzzed
from attninf_assets_tests.torture.hostile_corpora import faults_of_corpus_refusal
from attninf_assets_tests.torture.refusals import Met, faults_of_message, faults_of_reason
from attninf_assets_tests.torture.spoiling import spoiled_tree

FED = {"corpus": 120, "shard": 120, "settings": 60, "selector": 20, "gguf": 6}


def test_garbage_is_taken_or_refused_in_words_that_help() -> None:
    assert FED.keys() == KINDS.keys()
    inputs = [(Attempt(1, number), kind) for kind, n in FED.items() for number in range(n)]
    assert told("fuzz", fuzzed(inputs)) == 0


def test_an_input_follows_from_seed_and_number_alone() -> None:
    """Whatever was fed before it: what is put in for a value is a copy."""
    tree = {"a": [1, {"b": 2}], "c": {"d": []}}
    drawn = [spoiled_tree(tree, Attempt(1, number).random()) for number in range(300)]
    for spoiled, _ in drawn:
        if isinstance(spoiled, dict):
            for value in spoiled.values():
                if isinstance(value, list):
                    value.append("changed")
    again = [spoiled_tree({"a": [1, {"b": 2}], "c": {"d": []}}, Attempt(1, number).random()) for number in range(300)]
    assert "changed" not in str(again)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("elsewhere: no", "does not begin with the place"),
        ("here: \x1b[2J", "would act on a terminal"),
        (f"here: {'x' * 4_000}", "is 4,002 characters"),
        ("here: a" + "\na" * 100, "101 lines"),
    ],
)
def test_words_that_do_not_help_are_found(message: str, fault: str) -> None:
    (found,) = faults_of_message(message, place="here")
    assert fault in found
    assert faults_of_message("here: domains.web.format: 'csv': not a format", place="here") == []


@pytest.mark.parametrize("reason", ["", "a\nb", "x" * 501])
def test_reasons_that_do_not_help_are_found(reason: str) -> None:
    assert faults_of_reason(reason) != []
    assert faults_of_reason("text is null") == []


@pytest.mark.parametrize(
    ("problem", "fault"),
    [
        ("is not valid YAML: something", "names no line"),
        ("is not valid:\n  wrong", "names no field"),
        ("is not valid:\n  domains.web.format: not a format", "shows no value"),
        ("is not valid:\n  domains.web.format: 'json': not a format", "shows not the value, 'csv'"),
        ("surprises", "names no field"),
    ],
)
def test_a_refusal_of_a_corpus_file_without_line_field_or_value_is_found(problem: str, fault: str) -> None:
    tree = {"domains": {"web": {"format": "csv"}}}
    (found,) = faults_of_corpus_refusal(f"c.yaml: the corpus file {problem}", path="c.yaml", tree=tree)
    assert fault in found


@pytest.mark.parametrize(
    ("does", "fault"),
    [
        (lambda: dict[str, int]()["absent"], "KeyError: 'absent'"),
        (lambda: bytearray(b"x") * (200 << 20), " bytes"),
        (lambda: bytearray(b"x") * (1 << 40), "MemoryError"),
    ],
)
def test_another_error_and_too_much_memory_are_wrong(does: object, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fed(directory: Path, draw: random.Random) -> Met:
        does()  # type: ignore[operator]
        return "accepted", []

    monkeypatch.setattr(fuzz, "_MOST_MEMORY", 64 << 20)
    monkeypatch.setattr(fuzz, "KINDS", {"this": (fed, 1)})
    _, faults = feed(Attempt(1, 1), "this")
    assert len(faults) == 1
    assert fault in faults[0]
