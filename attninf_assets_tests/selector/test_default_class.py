"""The numeric class that a selector gets where none was asked for, and when it is chosen anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.influence.model.head import Head
from attninf_assets.influence.model.numeric_class import NumericClass
from attninf_assets.influence.model.text_tokenizer import load_tokenizer
from attninf_assets.influence.probes import build_probes
from attninf_assets.influence.selector import Selector
from attninf_assets.selector import building, default_class
from attninf_assets.selector.building import BuiltSelector, HeadSettings, build_default_selector
from attninf_assets.selector.default_class import RANKING_NOISE, keeps_the_ranking, ranking_noise
from attninf_assets.selector.model_source import ModelDigests
from attninf_assets.selector.probe_plan import evidence_for
from attninf_assets.selector.stored import publish_selector
from attninf_assets.store.root import Root
from benchmarks.rigs.made_up_text import sentences

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MODEL = ModelDigests("model", "tokenizer")


def selector(numeric_class: NumericClass, *, model: str = "model") -> Selector:
    return Selector(model, "tokenizer", (Head(1, 0), Head(2, 3)), "uniform", 64, "bos", numeric_class)


def chosen(
    root: Root, monkeypatch: pytest.MonkeyPatch, *, device: torch.device, has_instructions: bool, survives: bool
) -> list[str]:
    """The classes in which a selector was built; the last is the one that is used."""
    built: list[str] = []

    def build(_: Any, __: Any, ___: Any, settings: HeadSettings, **____: Any) -> BuiltSelector:
        built.append(settings.numeric_class)
        return BuiltSelector(selector(settings.numeric_class), None, reused=False)  # type: ignore[arg-type]

    monkeypatch.setattr(building, "build_selector", build)
    monkeypatch.setattr(building, "multiplies_16_bits", lambda on: on.type == "cpu" and has_instructions)
    monkeypatch.setattr(building, "keeps_the_ranking", lambda *_, **__: survives)
    settings = HeadSettings(0.05, "uniform", 64, "bfloat16" if device.type == "cuda" else "float32")
    found = build_default_selector(
        root, MODEL, [], settings, directory=Path(), evidence=evidence_for(16), device=device
    )
    assert found.selector.numeric_class == built[-1]
    return built


@pytest.mark.parametrize(
    ("device", "has_instructions", "survives", "built"),
    [
        (CPU, False, True, ["float32"]),
        (CPU, True, True, ["bfloat16"]),
        (CPU, True, False, ["bfloat16", "float32"]),
        (CUDA, False, False, ["bfloat16"]),
    ],
)
def test_a_new_model_gets_16_bits_where_the_device_is_made_for_them_and_its_ranking_survives(
    root: Root,
    monkeypatch: pytest.MonkeyPatch,
    device: torch.device,
    has_instructions: bool,
    survives: bool,
    built: list[str],
) -> None:
    assert chosen(root, monkeypatch, device=device, has_instructions=has_instructions, survives=survives) == built


@pytest.mark.parametrize("has_instructions", [True, False])
@pytest.mark.parametrize("in_use", ["float32", "bfloat16"])
def test_machines_of_a_fleet_never_take_turns_in_changing_a_models_class(
    root: Root, monkeypatch: pytest.MonkeyPatch, in_use: NumericClass, has_instructions: bool
) -> None:
    publish(root, selector(in_use))
    assert chosen(root, monkeypatch, device=CPU, has_instructions=has_instructions, survives=True) == [in_use]
    assert chosen(root, monkeypatch, device=CUDA, has_instructions=False, survives=True) == ["bfloat16"]


@pytest.mark.parametrize("before", [selector("bfloat16", model="another"), selector("float8")])
def test_another_models_class_and_float8_are_nobodys_default(
    root: Root, monkeypatch: pytest.MonkeyPatch, before: Selector
) -> None:
    publish(root, before)
    assert chosen(root, monkeypatch, device=CPU, has_instructions=False, survives=True) == ["float32"]


def test_where_the_selector_in_use_cannot_be_read_the_class_is_chosen_anew(
    root: Root, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root.write_bytes("selectors/current.json", b"[]")
    assert chosen(root, monkeypatch, device=CPU, has_instructions=False, survives=True) == ["float32"]
    assert "the numeric class is chosen anew" in caplog.text


def publish(root: Root, in_use: Selector) -> None:
    class Stored:
        def to_json(self) -> str:
            return "{}"

    publish_selector(root, in_use, Stored())  # type: ignore[arg-type]


@given(
    scores=st.lists(st.floats(-10, 10), min_size=2, max_size=20),
    shift=st.floats(-5, 5),
    seed=st.integers(0, 99),
)
def test_noise_is_a_share_of_the_spread_whatever_the_scores_unit_and_a_shift_is_none(
    scores: list[float], shift: float, seed: int
) -> None:
    exact = np.array(scores)
    noisy = exact + np.random.default_rng(seed).normal(0, 0.1, len(exact))
    if exact.std() < 1e-3:
        return
    assert ranking_noise(exact + shift, exact) < 1e-6
    assert ranking_noise(100 * noisy, 100 * exact) == pytest.approx(ranking_noise(noisy, exact), rel=1e-6)


def test_scores_that_are_all_the_same_or_none_tell_nothing_of_a_ranking() -> None:
    assert ranking_noise(np.array([1.0, 2.0]), np.array([1.0, 1.0])) == float("inf")
    assert ranking_noise(np.array([1.0, np.nan]), np.array([1.0, 2.0])) == float("inf")


@pytest.mark.parametrize(("spoilt", "kept"), [(False, True), (True, False)])
def test_the_ranking_is_compared_on_documents_of_the_corpus_own_sentences(
    tiny_directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, spoilt: bool, kept: bool
) -> None:
    tokenizer = load_tokenizer(tiny_directory)
    probes = build_probes(sentences(), tokenizer, start_token=1, n_probes=4, max_tokens=1200, seed=0)
    seen: list[str] = []
    own: Callable[..., np.ndarray] = default_class._scores

    def scores(of: Selector, documents: list[str], numeric_class: NumericClass, **where: Any) -> np.ndarray:
        seen.extend(documents)
        exact = own(of, documents, "float32", **where)  # the tiny model is too wide for 16 bits
        noise = np.linspace(-1, 1, len(exact)) * exact.std() * (0.3 if spoilt else 0.01)
        return exact if numeric_class == "float32" else exact + noise

    monkeypatch.setattr(default_class, "_scores", scores)
    with caplog.at_level("INFO"):
        assert keeps_the_ranking(selector("bfloat16"), probes, directory=tiny_directory, device=CPU) == kept
    assert f"(at most {RANKING_NOISE:g}): it is {'the default' if kept else 'not used'}" in caplog.text
    assert len(seen) > 4
    assert all(any(sentence in document for sentence in sentences()) for document in seen)
