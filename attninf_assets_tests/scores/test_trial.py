"""The trial of a selector: what it measures is what its texts are, within its bounds."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from attninf_assets.influence.document_score import DocumentScore
from attninf_assets.influence.runtime.remembered_rate import RememberedRate
from attninf_assets.influence.selector import Selector
from attninf_assets.scores.trial import Trial, read_trial, try_selector
from attninf_assets.store.root import Root
from attninf_assets_tests.support.crashes import JournalledEngine, journalled_engine
from attninf_assets_tests.support.planted_model import PLANTED
from benchmarks.rigs.made_up_text import sentences

SELECTOR = Selector("model", "tokenizer", (PLANTED,), "uniform", 64, "bos", "float32")
TEXTS = {"letters": sentences()[:20], "notes": [*sentences()[20:25], ""]}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JournalledEngine:
    monkeypatch.setattr("attninf_assets.influence.scoring._chunk_sizes", None)  # which the next line replaces
    return journalled_engine(tmp_path / "journal")


def tried(engine: JournalledEngine, texts: Mapping[str, Sequence[str]] = TEXTS) -> Trial | None:
    return try_selector(engine, SELECTOR, texts, device="cpu here", torch_version="2.0")


def test_bytes_per_token_are_counted_and_speed_is_of_documents_that_were_scored(engine: JournalledEngine) -> None:
    trial = tried(engine)
    assert trial is not None
    for domain, texts in TEXTS.items():
        n_bytes = sum(len(text.encode()) for text in texts)
        n_tokens = sum(len(engine.tokenizer.encode(text)) for text in texts)
        assert trial.bytes_per_token[domain] == n_bytes / n_tokens
    assert 0 < trial.documents <= 25
    assert trial.tokens_per_second == trial.tokens / trial.seconds
    assert trial.selector_fingerprint == SELECTOR.fingerprint


@pytest.mark.parametrize("texts", [{}, {"letters": []}, {"letters": ["", ""], "notes": []}])
def test_without_texts_nothing_is_known(engine: JournalledEngine, texts: dict[str, list[str]]) -> None:
    assert tried(engine, texts) is None


def test_it_ends_when_its_time_is_over(engine: JournalledEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attninf_assets.influence.scoring._BUDGETS_PER_CHUNK", 2)
    whole = tried(engine)
    seen: list[int] = []

    def slow(chunk: list[DocumentScore]) -> None:
        seen.append(len(chunk))
        time.sleep(0.02)

    monkeypatch.setattr("attninf_assets.scores.trial._SECONDS", 0.01)
    short = tried(dataclasses.replace(engine, on_chunk=slow))
    assert whole is not None
    assert short is not None
    assert len(seen) == 1
    assert short.documents == seen[0] < whole.documents
    assert short.seconds >= 0.02


def test_a_slow_device_is_given_no_more_than_it_has_time_for(engine: JournalledEngine, tmp_path: Path) -> None:
    rate = RememberedRate(tmp_path / "rates", of={})
    rate.write(1.0)  # FLOP/s
    trial = tried(dataclasses.replace(engine, detection_rate=rate))
    assert trial is not None
    assert trial.documents == 1


def test_a_trial_is_read_back_and_a_damaged_one_is_none(root: Root, caplog: pytest.LogCaptureFixture) -> None:
    trial = Trial("f", "cpu here", "2.0", 3, 90, 0.5, {"letters": 4.0})
    trial.publish(root)
    assert read_trial(root, "f") == trial
    assert read_trial(root, "g") is None
    assert str(trial) == "3 documents of 90 tokens scored in 0.5 s, 180 tokens/s; bytes per token: letters 4.00"
    root.write_bytes("selectors/trials/f.json", root.read_bytes("selectors/trials/f.json").replace(b"90", b"91"))
    assert read_trial(root, "f") is None
    assert "trials/f.json: damaged, materialize retrieval_heads again" in caplog.text


@pytest.mark.parametrize(
    ("other", "holds"),
    [
        ({}, True),
        ({"domains": {"code"}}, False),
        ({"device": "x"}, False),
        ({"torch_version": "2.1"}, False),
    ],
)
def test_a_trial_holds_where_and_for_what_it_was_made(other: dict[str, Any], holds: bool) -> None:
    trial = Trial("f", "cpu here", "2.0", 3, 90, 0.5, {"letters": 4.0, "notes": 3.0})
    made: dict[str, Any] = {"device": "cpu here", "torch_version": "2.0", "domains": {"letters"}}
    assert trial.holds_for(**made | other) == holds
