"""The selections file: what it may say, and that whatever else it says is refused by file, field and value."""

from pathlib import Path

import pytest

from attninf_assets.selection.definitions import PAPER, Keep, SelectionDefinition
from attninf_assets.selection.selections_file import Selections, read_selections

EXAMPLE = """
selections:
  paper: {}
  lean:
    keep: {fraction: 0.15, of: tokens}
    domains: {web: {fraction: 0.10}, junk: exclude, math: {min_tokens: 64, max_tokens: 20000}, code: {documents: 7}}
    where: repetition < 0.3 AND n_tokens >= 64
    temperature: 0.5
    seed: 3
    bands: {"5-50": 1, "0-5": 0, "50-95": 2, "95-100": 0.5}
  large:
    keep: {tokens: 5e9}
    domains: {web: {documents: 2_000_000}}
"""


def _read(tmp_path: Path, text: str) -> Selections:
    path = tmp_path / "selections.yaml"
    path.write_text(text)
    return read_selections(path)


def test_a_file_says_what_each_selection_keeps_of_each_domain(tmp_path: Path) -> None:
    found = _read(tmp_path, EXAMPLE).definitions
    assert list(found) == ["paper", "lean", "large"]
    assert found["paper"].kept("web") == Keep(fraction=0.2, of="documents")
    lean = found["lean"]
    assert [lean.kept(domain) for domain in ("web", "math", "code")] == [
        Keep(fraction=0.1, of="tokens"),
        Keep(fraction=0.15, of="tokens"),
        Keep(documents=7),
    ]
    assert lean.excludes("junk")
    assert not lean.excludes("web")
    assert lean.lengths() == {"math": (64, 20_000)}
    assert [(float(b.begin), float(b.end), float(b.weight)) for b in lean.weighted_bands()] == [
        (0, 5, 0),
        (5, 50, 1),
        (50, 95, 2),
        (95, 100, 0.5),
    ]
    assert found["large"].kept("web") == Keep(documents=2_000_000)
    assert found["large"].kept("math") == Keep(tokens=5_000_000_000)


@pytest.mark.parametrize(
    ("written", "mixed"),
    [
        ("selections: {lean: {}, paper: {}}", "paper"),
        ("selections: {lean: {}}", "lean"),
        ("{selections: {lean: {}, paper: {}}, mix: lean}", "lean"),
    ],
)
def test_the_training_corpus_repeats_the_selection_that_the_file_says(tmp_path: Path, written: str, mixed: str) -> None:
    assert _read(tmp_path, written).mixed == mixed


def test_without_a_file_there_is_the_papers_selection() -> None:
    assert read_selections(None).definitions == {PAPER: SelectionDefinition()}


def test_a_digest_changes_with_what_is_said_and_not_with_how_it_is_written(tmp_path: Path) -> None:
    definitions = _read(
        tmp_path,
        "selections:\n"
        "  a: {keep: {fraction: 0.1, of: tokens}, order: score, seed: 0}\n"
        "  b: {seed: 0x0, keep: {of: tokens, fraction: 1e-1}}\n".replace("1e-1", "0.10")
        + "  c: {keep: {fraction: 0.1, of: tokens}, seed: 1}\n"
        "mix: a\n",
    ).definitions
    assert definitions["a"].digest == definitions["b"].digest != definitions["c"].digest
    for one in _read(tmp_path, EXAMPLE).definitions.values():
        assert SelectionDefinition.from_json(one.to_json()) == one
        assert SelectionDefinition.from_json(one.to_json()).digest == one.digest


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("keep: {fraction: 1.5}", "selections.x.keep.fraction: 1.5: expected a number above 0, at most 1"),
        ("keep: {fraction: 0}", "selections.x.keep.fraction: 0: expected"),
        ("keep: {fraction: .nan}", "selections.x.keep.fraction: nan: expected"),
        ("keep: {fraction: .1, tokens: 3}", "fraction and tokens exclude each other"),
        ("keep: {of: tokens}", "give one of fraction, documents and tokens"),
        ("keep: {documents: 5, of: tokens}", "`of` belongs to a fraction"),
        ("keep: {documents: 0}", "selections.x.keep.documents: 0: expected at least 1"),
        ("keep: {documents: 1.5}", "selections.x.keep.documents: 1.5: not a whole number"),
        ("keep: {fractoin: 1}", "selections.x.keep.fractoin: unknown key; did you mean fraction?"),
        ("keep: {fraction: 1, of: bytes}", "selections.x.keep.of: 'bytes': known are documents, tokens"),
        ("ordr: score", "selections.x.ordr: unknown key; did you mean order?"),
        ("order: scoer", "selections.x.order: 'scoer': did you mean score?"),
        ("temperature: -1", "selections.x.temperature: -1: expected a finite number, at least 0"),
        ("temperature: .inf", "selections.x.temperature: inf: expected"),
        ("seed: -1", "selections.x.seed: -1: "),
        ("{order: random, temperature: 1}", "temperature: a random order has none"),
        ("domains: {web: exlude}", "selections.x.domains.web: 'exlude': did you mean exclude?"),
        ("domains: {web: 3}", "selections.x.domains.web: 3: neither `exclude` nor a mapping"),
        ("domains: {web: {frction: 1}}", "selections.x.domains.web.frction: unknown key; did you mean fraction?"),
        ("domains: {web: {min_tokens: 9, max_tokens: 3}}", "min_tokens 9 is above max_tokens 3"),
        ('bands: {"0-5": 1, "6-100": 1}', "6-100: bands are to follow on each other from 0 to 100"),
        ('bands: {"0-50": 1}', "they end at 50, not at 100"),
        ('bands: {"top": 1}', "'top': not a band"),
        ('bands: {"0-100": -1}', "weight -1.0: expected a finite number, at least 0"),
        ('bands: {"0-100": 0}', "every weight is 0: nothing would be selected"),
        ("where: 3", "selections.x.where: 3: not a string"),
        ("{seed: 1, seed: 2}", "selections.x.seed: written twice"),
    ],
)
def test_what_is_wrong_is_said_by_file_field_and_value(tmp_path: Path, written: str, said: str) -> None:
    one = written if written.startswith("{") else f"{{{written}}}"
    with pytest.raises(ValueError, match=r"selections\.yaml: the selections file is not valid:") as refusal:
        _read(tmp_path, f"selections:\n  x: {one}\n")
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file: empty: not a mapping"),
        ("selections: {}", "selections: {}: no selection in it"),
        ("selection: {}", "selection: unknown key; did you mean selections?"),
        ("selections: {Paper: {}}", "selections.Paper: 'Paper': not a name"),
        ("selections: {x: }", "selections.x: empty: not a mapping"),
        ("selections: [", "not valid YAML: line 1"),
        ("selections: {lean: {}, wide: {}}", "mix: missing; which is the training corpus to repeat: lean, wide?"),
        ("{selections: {lean: {}, paper: {}}, mix: laen}", "no such selection; did you mean lean?"),
    ],
)
def test_what_is_no_selections_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"selections\.yaml: ") as refusal:
        _read(tmp_path, text)
    assert said in str(refusal.value)


def test_selections_and_domains_that_there_are_not_are_refused_by_name(tmp_path: Path) -> None:
    found = _read(tmp_path, "selections:\n  lean: {domains: {web: exclude, code: {fraction: 1}}}\n")
    with pytest.raises(ValueError, match=r"'laen': .*selections\.yaml does not define it; did you mean lean\?"):
        found.named("laen")
    with pytest.raises(ValueError, match=r"selections\.lean\.domains\.web: no such domain; did you mean webs\?"):
        found.require_domains("lean", ["code", "webs"])
    found.require_domains("lean", ["code", "web"])
    excluded = _read(tmp_path, "selections:\n  none: {domains: {web: exclude, code: exclude}}\n")
    excluded.require_domains("none", ["code", "web", "math"])
    with pytest.raises(ValueError, match=r"selections\.none\.domains: every domain is excluded"):
        excluded.require_domains("none", ["code", "web"])
