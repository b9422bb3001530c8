import shutil
from typing import Any

import pytest
import torch

from attninf_assets.influence.acceleration.float8 import Float8Linear, quantized
from attninf_assets.influence.acceleration.fusion import fuse, fused_log_sum_exp, unfuse
from attninf_assets.influence.model.head import BASE, Head
from attninf_assets.influence.model.mixed_precision import to_sixteen_bit
from attninf_assets.influence.model.packing import Window, pack
from attninf_assets.influence.verification import verified_model
from attninf_assets.influence.verification.verified_model import verified
from attninf_assets_tests.support.tiny_models import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")  # torch.compile's own
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
STREAMS = [BASE, frozenset({Head(1, 0)})]


def packs(*lengths: int) -> Any:
    ids = torch.randint(3, 400, (99,), generator=torch.Generator().manual_seed(0)).tolist()
    return pack([Window(n, ids[:length]) for n, length in enumerate(lengths)], start_token=1)


@needs_compiler
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_fused_16_bit_model_has_about_the_losses_of_the_plain_one(name: str) -> None:
    """On the CPU the compiler may leave out a rounding to 16 bits and back; on CUDA products are given 16 bits."""
    plain = verified(to_sixteen_bit(tiny_model(name)), start_token=1, max_tokens=64)
    fused = verified(to_sixteen_bit(tiny_model(name)), start_token=1, max_tokens=64, fusing=True)
    assert any(m._compiled_call_impl is not None for m in fused.model.modules())
    found, expected = (model.losses_SR(packs(50, 11), STREAMS) for model in (fused, plain))
    assert (found - expected).abs().mean() < 0.03


@needs_compiler
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_a_fused_model_has_the_losses_of_the_plain_one_at_any_length(name: str) -> None:
    plain = verified(tiny_model(name), start_token=1, max_tokens=64)
    fused = verified(tiny_model(name), start_token=1, max_tokens=64, fusing=True)
    assert any(m._compiled_call_impl is not None for m in fused.model.modules())
    for packed in (packs(9, 30), packs(2), packs(50, 11, 3)):
        torch.testing.assert_close(
            fused.losses_SR(packed, STREAMS), plain.losses_SR(packed, STREAMS), atol=1e-4, rtol=0
        )


@needs_compiler
def test_a_fused_float8_model_has_about_the_losses_of_the_plain_one() -> None:
    """Single roundings of float8 fall the other way; means hardly move."""
    plain = verified(to_sixteen_bit(tiny_model("llama")), start_token=1, max_tokens=64, float8=True)
    fused = verified(to_sixteen_bit(tiny_model("llama")), start_token=1, max_tokens=64, float8=True, fusing=True)
    assert any(type(m) is Float8Linear and m.quantize is not quantized for m in fused.model.modules())
    assert all(m.quantize is quantized for m in plain.model.modules() if type(m) is Float8Linear)
    packed = packs(50, 30, 20)
    difference = fused.losses_SR(packed, STREAMS).mean(dim=1) - plain.losses_SR(packed, STREAMS).mean(dim=1)
    assert difference.abs().max() < 0.1


@needs_compiler
def test_the_fused_log_sum_exp_is_the_log_sum_exp_and_leaves_the_logits_alone() -> None:
    logits = 30 * torch.randn(7, 50)
    before = logits.clone()
    torch.testing.assert_close(fused_log_sum_exp()(logits), before.double().logsumexp(-1).float())
    assert torch.equal(logits, before)


def test_norms_and_feed_forward_blocks_are_found_and_released() -> None:
    model = tiny_model("llama")
    assert fuse(model) == 3 * 3 + 1, "two norms and a block a layer, and the last norm"
    unfuse(model)
    assert all(m._compiled_call_impl is None for m in model.modules())
    assert fuse(tiny_model("opt")) == 0


def test_where_compiling_fails_the_model_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found")

    monkeypatch.setattr(verified_model, "fused_log_sum_exp", lambda: no_compiler)
    monkeypatch.setattr(verified_model, "fuse", lambda _: 1)
    model = verified(tiny_model("llama"), start_token=1, max_tokens=64, fusing=True)
    assert "fusing is not used: InvalidCxxCompiler" in caplog.text
    expected = verified(tiny_model("llama"), start_token=1, max_tokens=64).losses_SR(packs(5), STREAMS)
    torch.testing.assert_close(model.losses_SR(packs(5), STREAMS), expected)
