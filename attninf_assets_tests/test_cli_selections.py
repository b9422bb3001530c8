"""The verbs of `attninf` that look at scores, from their arguments to their exit code."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from attninf_assets.cli import app
from attninf_assets.store.root import Root
from attninf_assets_tests.support.scored_lake import publish, score_and_select

SCORES = {"web": [float(number) for number in range(40)], "code": [0.5, -0.5]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """A root with two selections, the one by the selector before and the one by the selector in use."""
    root = Root.at(tmp_path / "root")
    score_and_select(root, publish(root, model="before"), SCORES)
    score_and_select(root, publish(root), {"web": SCORES["web"][::-1], "code": SCORES["code"]})
    monkeypatch.setenv("ATTNINF_ROOT", root.uri)
    (tmp_path / "web.jsonl").write_text("")
    corpus = {"domains": {"web": {"files": str(tmp_path / "web.jsonl"), "format": "jsonl"}}}
    (tmp_path / "corpus.yaml").write_text(yaml.safe_dump(corpus))
    monkeypatch.setenv("ATTNINF_CORPUS", str(tmp_path / "corpus.yaml"))
    return root


def attninf(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def complaint(*arguments: str | Path) -> str:
    """The one line that bad input is answered with."""
    result = attninf(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


def test_what_if_shows_a_line_for_each_fraction_and_as_json_the_same(root: Root) -> None:
    shown = attninf("what-if", "--fraction", "0.2", "--fraction", "0.5", "--domain", "web")
    assert shown.exit_code == 0, shown.output
    assert "web, fractions of documents: 40 documents and 400 tokens have a score" in shown.stdout
    assert shown.stdout.split().count("100.0%") == 2, "a fifth is what the selection holds, by documents and by tokens"
    rows = [json.loads(line) for line in attninf("what-if", "--fraction", "0.2", "--json").stdout.splitlines()]
    assert [(row["domain"], row["budget"]) for row in rows] == [
        (domain, budget) for domain in ("code", "web") for budget in ("documents", "tokens")
    ]
    assert rows[2]["threshold_score"] == 32
    assert rows[2]["overlaps"] == [{"selection": "paper", "documents": 8, "share": 1, "jaccard": 1}]


def test_bands_are_shown_and_exported_at_weights(root: Root, tmp_path: Path) -> None:
    shown = attninf("bands", "--domain", "web")
    assert shown.exit_code == 0, shown.output
    assert [line.split()[:3] for line in shown.stdout.splitlines()[2:]] == [
        [f"{5 * n}-{5 * n + 5}", "2", "20"] for n in range(20)
    ]
    assert len(attninf("bands", "--json").stdout.splitlines()) == 40
    out = tmp_path / "mix.yaml"
    made = attninf("bands", "--export", "olmo", out, "--domain", "web", "--weights", "{0-95: 0, 95-100: 0.5}")
    assert made.exit_code == 0, made.output
    (source,) = yaml.safe_load(out.read_text())["sources"]
    assert source == {
        "source_name": "web_95-100",
        "target_ratio": 1.0,
        "max_repetition_ratio": 1.0,
        "paths": ["tokens/web/95-100/*.npy"],
    }
    assert f"{out}: " in complaint("bands", "--export", "olmix", out)
    assert attninf("bands", "--export", "olmix", out, "--force").exit_code == 0


def test_a_comparison_shows_what_entered_and_left_between_two_selectors(root: Root) -> None:
    shown = attninf("compare", "paper@v1", "paper", "--top", "2", "--domain", "web")
    assert shown.exit_code == 0, shown.output
    assert "web: 2 of 8 that entered, by their rank in B" in shown.stdout
    assert "  rank 1 of 8, score 39.0000, d0: [documents has it no more]" in shown.stdout
    assert "web: 2 of 8 that left, by their rank in A" in shown.stdout
    (row,) = [
        json.loads(line)
        for line in attninf("compare", "paper", "paper@v1", "--json", "--domain", "web").stdout.splitlines()
    ]
    assert (row["jaccard_documents"], row["n_entered"], row["n_left"]) == (0, 8, 8)
    itself = attninf("compare", "paper", f"{root.uri}::paper", "--json")
    assert {json.loads(line)["jaccard_tokens"] for line in itself.stdout.splitlines()} == {1}


def test_bad_input_is_answered_with_one_sentence(root: Root, tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    no_lake = f"{nothing}: no tables there; give --root or set ATTNINF_ROOT"
    refused: list[tuple[list[str | Path], str]] = [
        (["what-if", "--fraction", "0"], "fraction 0.0: expected a number above 0, at most 1"),
        (["what-if", "--fraction", "1.5"], "fraction 1.5: expected a number above 0, at most 1"),
        (["what-if", "--domain", "wep"], "domain 'wep' has no scores; did you mean web?"),
        (["what-if", "--root", nothing], no_lake),
        (["bands", "--root", nothing], no_lake),
        (
            ["bands", "--export", "olmo"],
            "give --export with the file that it writes: attninf bands --export olmo OUT.yaml",
        ),
        (["bands", "--weights", "{0-50: 1}"], "bands: band 50-55 has no weight; together the ranges must be 0-100"),
        (["compare", "paper", "papr"], f"{root.uri}: no selection 'papr'; did you mean paper?"),
        (["compare", "paper", f"{nothing}::paper"], no_lake),
        (
            ["compare", "paper", "paper", "--domain", "wep"],
            "neither selection holds a document of domain 'wep'; did you mean web?",
        ),
    ]
    for arguments, wanted in refused:
        assert complaint(*arguments) == f"attninf {arguments[0]}: {wanted}"


def test_nothing_scored_by_the_selector_in_use_is_told(root: Root) -> None:
    fingerprint = publish(root, model="never used")
    assert complaint("what-if") == (
        f"attninf what-if: {root.uri}: no document has a score by the selector in use, {fingerprint[:12]}: materialize "
        "attention_influence_scores first"
    )
    root.delete("selectors")
    assert "materialize retrieval_heads first" in complaint("bands")
