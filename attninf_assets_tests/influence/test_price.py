"""What detection and evidence will cost, against counts of what they then compute."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence.detection import DetectionCost, DetectionPrice
from attninf_assets.influence.evidence import gather_evidence
from attninf_assets.influence.heads import detect_retrieval_heads
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.price import detection_price
from attninf_assets.influence.probes import Probe, build_probes
from attninf_assets.influence.runtime.remembered_rate import NOT_REMEMBERED, RememberedRate
from attninf_assets.influence.runtime.token_budget import TokenBudget
from attninf_assets_tests.support.planted_model import PLANTED, planted_model
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer


@cache
def probes() -> tuple[Probe, ...]:
    return tuple(build_probes(sentences(), tiny_text_tokenizer(), start_token=1, n_probes=4, max_tokens=600, seed=1))


def priced(
    n_probes: int, *, evidence: int = 1, n_sets: int = 3, head_fraction: float = 0.05, rate: RememberedRate
) -> DetectionPrice:
    return detection_price(
        StreamedModel(planted_model()),
        probes()[:n_probes],
        probes()[:evidence],
        head_fraction=head_fraction,
        n_random_sets=n_sets,
        n_audit_probes=1,
        rate=rate,
    )


def remembered(rate: float, memory: Path) -> RememberedRate:
    found = RememberedRate(memory, of={"device": "cpu"})
    found.write(rate)
    return found


@pytest.mark.parametrize(("head_fraction", "heads"), [(0.05, [PLANTED]), (0.25, [PLANTED, Head(1, 3)])])
def test_the_tokens_told_are_those_that_are_then_computed(
    tmp_path: Path, head_fraction: float, heads: list[Head]
) -> None:
    computed: list[int] = []

    def count(_: object, __: object, output: Any) -> None:
        hidden_STC = output[0] if isinstance(output, tuple) else output
        computed.append(hidden_STC.shape[:-1].numel())

    price = priced(4, evidence=2, head_fraction=head_fraction, rate=remembered(1e9, tmp_path))
    model, budget = StreamedModel(planted_model()), TokenBudget(4096)
    hook = planted_model().model.layers[-1].register_forward_hook(count)
    try:
        detect_retrieval_heads(model, probes(), head_fraction=0.05, token_budget=budget)
        assert sum(computed) == price.tokens
        computed.clear()
        evidence = gather_evidence(
            model,
            probes()[:2],
            heads,
            mask="uniform",
            n_random_sets=3,
            n_audit_probes=1,
            seed=0,
            token_budget=budget,
        )
    finally:
        hook.remove()
    assert evidence.random_effect < evidence.effect / 2  # no set is suspect
    assert sum(computed) == price.evidence_tokens


@settings(deadline=None, max_examples=10)
@given(n_probes=st.integers(1, 4), n_sets=st.integers(1, 4), rate=st.floats(1.0, 1e12), faster=st.floats(1.5, 100))
def test_time_is_the_work_over_the_rate(
    tmp_path_factory: pytest.TempPathFactory, n_probes: int, n_sets: int, rate: float, faster: float
) -> None:
    memory = tmp_path_factory.mktemp("rates")
    price, quick, alone = (
        priced(n, n_sets=n_sets, rate=remembered(at, memory))
        for n, at in [(n_probes, rate), (n_probes, rate * faster), (1, rate)]
    )
    assert price.rate_is_remembered
    assert price.seconds == pytest.approx(faster * quick.seconds)
    assert price.evidence_seconds == pytest.approx(faster * quick.evidence_seconds)
    assert price.evidence_seconds == alone.evidence_seconds
    assert alone.seconds <= price.evidence_seconds <= (3 + n_sets) * alone.seconds * (1 + 1e-9)


def test_without_a_memory_the_rate_is_measured_and_the_price_is_told_in_words() -> None:
    price = priced(4, rate=NOT_REMEMBERED)
    assert not price.rate_is_remembered
    assert price.seconds > 0
    told = str(DetectionPrice(800, 3_276_800, 64, 1_310_720, 7100.0, 90000.0, rate_is_remembered=False))
    assert told == (
        "detection on 800 probes will compute 3,276,800 tokens in about 118 min, then evidence on 64 of them 1,310,720 "
        "in about 25.0 h, as measured on one probe"
    )
    assert str(DetectionCost(20.0, 15.0)) == "detection took 20 s, evidence 15 s: 0.75 times as long"


@pytest.mark.parametrize("content", ["", "[]", '{"flops_per_second": "fast"}', '{"flops_per_second": 0}', "{}"])
def test_a_file_that_holds_no_rate_counts_as_none(tmp_path: Path, content: str) -> None:
    rate = remembered(5.0, tmp_path)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["flops_per_second"] == rate.read() == 5.0
    file.write_text(content)
    assert rate.read() is None
    rate.write(7.0)
    assert rate.read() == 7.0
    assert RememberedRate(tmp_path, of={"device": "cuda"}).read() is None
