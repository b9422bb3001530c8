"""What only a CUDA device can show: its kernels, its memory, its float8; against the slow oracle on the CPU.

Needs pytest, torch, transformers and numpy alone; the command is in `benchmarks/README.md`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attninf_assets.influence.acceleration.peak import measured_peak
from attninf_assets.influence.document_score import Text
from attninf_assets.influence.engine import load_engine
from attninf_assets.influence.model.head import BASE, Head
from attninf_assets.influence.model.kernels import (
    Documents,
    Logits,
    document_by_document,
    variable_length,
    variable_length_split,
)
from attninf_assets.influence.model.mixed_precision import to_sixteen_bit
from attninf_assets.influence.model.numeric_class import NumericClass
from attninf_assets.influence.model.packing import Window, pack
from attninf_assets.influence.runtime.host_copy import Arriving
from attninf_assets.influence.runtime.progress import BudgetHalved, Progress
from attninf_assets.influence.runtime.token_budget import TokenBudget
from attninf_assets.influence.scoring import SCORE_TOLERANCE
from attninf_assets.influence.selector import Selector
from attninf_assets.influence.verification.verified_model import verified
from attninf_assets_tests.support import oracle
from attninf_assets_tests.support.tiny_models import SUPPORTED, save_tiny_model, tiny_model
from benchmarks.rigs.made_up_text import sentences

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")
HEADS = (Head(1, 0), Head(2, 3))
MASKED = frozenset({(1, 0), (2, 3)})
STREAMS = [BASE, frozenset(HEADS)]
BFLOAT16 = 0.03  # nats on a document's mean loss: what 8 bits of mantissa leave of three wide random layers


def texts(n_documents: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(3, 300, 5 + 3 * n).tolist() for n in range(n_documents)]


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [None, 7, 300])
@pytest.mark.parametrize("n_key_heads", [2, 8])
@pytest.mark.parametrize("size", [64, 128])
def test_the_variable_length_kernel_computes_what_one_call_a_document_does(
    size: int, n_key_heads: int, window: int | None, sinks: bool
) -> None:
    lengths = [1, 700, 2, 33, 256, 257]
    ends = np.cumsum(lengths).tolist()
    documents = Documents.on(CUDA, list(zip([0, *ends[:-1]], ends, strict=True)))
    torch.manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, sum(lengths), size, device=CUDA, dtype=torch.bfloat16)
        for heads in (8, n_key_heads, n_key_heads)
    )
    q[1, 3] = 0  # a masked head
    logits = Logits(size**-0.5, window, None, torch.linspace(-1, 2, 8, device=CUDA) if sinks else None)
    found = variable_length(q, k, v, documents, logits)
    expected = document_by_document(q.float(), k.float(), v.float(), documents, logits)
    torch.testing.assert_close(found.float(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("name", SUPPORTED)
def test_losses_in_float32_equal_the_oracle_on_every_architecture(name: str) -> None:
    model = verified(tiny_model(name).to(CUDA), start_token=1, max_tokens=64)
    documents = texts(5)
    losses_SR = model.losses_SR(pack([Window(n, d) for n, d in enumerate(documents)], start_token=1), STREAMS)
    for found_R, masked in zip(losses_SR.cpu(), (oracle.NOBODY, MASKED), strict=True):
        for d, part in zip(documents, found_R.split([len(d) for d in documents]), strict=True):
            expected = oracle.document_losses(tiny_model(name), d, start_token=1, max_tokens=64, masked=masked)
            np.testing.assert_allclose(part.numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("fusing", [False, True])
@pytest.mark.parametrize("name", SUPPORTED)
def test_mean_losses_in_bfloat16_are_near_the_oracles_on_every_architecture(name: str, fusing: bool) -> None:
    model = verified(to_sixteen_bit(tiny_model(name)).to(CUDA), start_token=1, max_tokens=64, fusing=fusing)
    documents = texts(12)
    losses_SR = model.losses_SR(pack([Window(n, d) for n, d in enumerate(documents)], start_token=1), STREAMS)
    rounded = oracle.with_rounded_operands(tiny_model(name))
    for found_R, masked in zip(losses_SR.cpu(), (oracle.NOBODY, MASKED), strict=True):
        expected = [
            loss
            for d in documents
            for loss in oracle.document_losses(rounded, d, start_token=1, max_tokens=64, masked=masked)
        ]
        assert found_R.mean().item() == pytest.approx(np.mean(expected), abs=BFLOAT16)


def test_the_fast_kernel_is_the_one_in_use_in_16_bits() -> None:
    """A fallback would be right, and slow."""
    big = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4}
    from transformers import LlamaConfig, LlamaForCausalLM

    model = to_sixteen_bit(LlamaForCausalLM(LlamaConfig(**big, vocab_size=512))).to(CUDA)
    assert verified(model, start_token=1, max_tokens=64).kernel in (variable_length, variable_length_split)


@pytest.mark.parametrize("numeric_class", ["bfloat16", "float8"])
def test_a_documents_score_is_the_same_whatever_is_beside_it(numeric_class: NumericClass, tmp_path: Path) -> None:
    engine = load_engine(save_tiny_model(tmp_path), numeric_class=numeric_class, max_tokens=64, device=CUDA)
    selector = Selector("m", "t", HEADS, "uniform", 64, "bos", numeric_class)
    several = [" ".join(sentences()[n : n + 4]) for n in range(24)]
    together = scores(engine, selector, several)
    alone = [score for text in several for score in scores(engine, selector, [text])]
    np.testing.assert_allclose(together, alone, atol=SCORE_TOLERANCE[numeric_class])


def scores(engine: Any, selector: Selector, several: list[str], reports: list[Any] | None = None) -> list[float]:
    documents = [Text(str(n), text) for n, text in enumerate(several)]
    kept: list[Any] = [] if reports is None else reports
    chunks = engine.score(selector, documents, n_bytes=sum(map(len, several)), on_progress=kept.append)
    return [score.score for chunk in chunks for score in chunk]


def test_memory_that_runs_out_costs_no_document(tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path / "model")
    engine = load_engine(directory, numeric_class="bfloat16", max_tokens=64, device=CUDA, memory=tmp_path / "memory")
    selector = Selector("m", "t", HEADS, "uniform", 64, "bos", "bfloat16")
    several = [" ".join(sentences()[n % 70 : n % 70 + 4]) for n in range(3000)]
    expected = scores(engine, selector, several)
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    filler = torch.empty(free - (30 << 20), dtype=torch.uint8, device=CUDA)  # 30 MiB are left
    reports: list[Any] = []
    try:
        engine.token_budget.tokens = 1 << 20
        found = scores(engine, selector, several, reports)
    finally:
        del filler
    np.testing.assert_allclose(found, expected, atol=SCORE_TOLERANCE["bfloat16"])
    assert any(isinstance(report, BudgetHalved) for report in reports)
    assert isinstance(reports[-1], Progress)
    assert reports[-1].done == reports[-1].total
    [file] = (tmp_path / "memory" / "token_budgets").iterdir()
    assert TokenBudget(1 << 20, memory=file.parent, of={"other": 1}).tokens == 1 << 20
    assert str(engine.token_budget.tokens) in file.read_text()


def test_results_are_read_behind_the_work_that_makes_them() -> None:
    a = torch.randn(4096, 4096, device=CUDA)
    product = a
    for _ in range(20):
        product = (product @ a) / 64
    expected = product.clone()
    arriving = Arriving(product)
    product.zero_()  # queued behind the copy
    np.testing.assert_array_equal(arriving.numpy(), expected.cpu().numpy())


def test_the_peak_is_that_of_matrix_units() -> None:
    assert measured_peak(CUDA, torch.bfloat16) > 5e12
