from typing import Any
from unittest.mock import PropertyMock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence.acceleration.float8 import Float8Linear, quantized, to_float8
from attninf_assets.influence.model.head import BASE, Head
from attninf_assets.influence.model.mixed_precision import to_sixteen_bit
from attninf_assets.influence.model.packing import Window, pack
from attninf_assets.influence.model.sixteen_bit import SixteenBitLinear
from attninf_assets.influence.verification import verified_model
from attninf_assets.influence.verification.verified_model import verified
from attninf_assets_tests.support.tiny_models import tiny_model


def linear(*, bias: bool, seed: int = 0) -> SixteenBitLinear:
    torch.manual_seed(seed)
    return SixteenBitLinear(torch.randn(48, 32) / 6, torch.randn(48) if bias else None)


@settings(deadline=None)
@given(scale=st.floats(1e-6, 1e6), n_rows=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_row_survives_quantization_to_within_the_spacing_of_float8(scale: float, n_rows: int, seed: int) -> None:
    x = scale * torch.randn(n_rows, 32, generator=torch.Generator().manual_seed(seed))
    q, scale_M1 = quantized(x)
    largest = x.abs().amax(dim=-1, keepdim=True)
    back = q.float() * scale_M1
    assert ((back - x).abs() <= x.abs() / 16 + largest * 2.0**-17).all(), "3 bits of mantissa, subnormals below 2^-6"
    torch.testing.assert_close(back.abs().amax(dim=-1, keepdim=True), largest)


def test_rows_of_nothing_stay_nothing() -> None:
    q, scale_M1 = quantized(torch.zeros(2, 16))
    assert (q.float() * scale_M1 == 0).all()


@pytest.mark.parametrize("bias", [True, False])
def test_a_float8_layer_is_the_layer_on_quantized_weights_and_inputs(bias: bool) -> None:
    layer = linear(bias=bias)
    x = torch.randn(3, 5, 32)
    (w_q, w_scale), (x_q, x_scale) = quantized(layer.weight.detach()), quantized(x.flatten(0, 1))
    expected = (x_q.double() * x_scale) @ (w_q.double() * w_scale).T
    if layer.bias is not None:
        expected = expected + layer.bias.double()
    found = Float8Linear(layer.weight, layer.bias)(x)
    assert found.shape == (3, 5, 48)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.flatten(0, 1).double(), expected, atol=2e-2, rtol=1e-2)
    assert (found - layer(x)).abs().max() < 0.15


def test_a_rows_result_does_not_depend_on_the_rows_beside_it() -> None:
    layer = Float8Linear(linear(bias=False).weight)
    x = torch.randn(6, 32)
    louder = torch.cat([x[:2], 100 * x[2:]])
    assert torch.equal(layer(louder)[:2], layer(x)[:2])


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox", "gpt2"])
def test_a_model_in_float8_is_verified_and_stays_near_bfloat16(name: str) -> None:
    ids = torch.randint(3, 400, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    packed = pack([Window(0, ids)], start_token=1)
    streams = [BASE, frozenset({Head(1, 0)})]
    plain = verified(to_sixteen_bit(tiny_model(name)), start_token=1, max_tokens=64).losses_SR(packed, streams)
    model = to_sixteen_bit(tiny_model(name))
    found = verified(model, start_token=1, max_tokens=64, float8=True).losses_SR(packed, streams)
    assert any(isinstance(m, Float8Linear) for m in model.modules())
    assert not isinstance(model.get_output_embeddings(), Float8Linear)
    assert not torch.equal(found, plain)
    assert (found.mean(dim=1) - plain.mean(dim=1)).abs().max() < 0.2


def test_layers_the_hardware_cannot_multiply_keep_their_type_and_none_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="'llama' has no linear layer"):
        to_float8(tiny_model("llama"), torch.nn.ModuleList([torch.nn.Linear(32, 7)]))
    odd = torch.nn.Sequential(torch.nn.Linear(32, 7), torch.nn.Linear(32, 16))
    to_float8(tiny_model("llama"), odd)
    assert [type(m).__name__ for m in odd] == ["Linear", "Float8Linear"]


def test_a_device_without_float8_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny_model("llama")
    monkeypatch.setattr(type(model), "device", PropertyMock(return_value=torch.device("mps")))
    with pytest.raises(ValueError, match="numeric_class float8: device mps has no float8"):
        to_float8(model, model.model.layers)


def test_a_model_that_float8_spoils_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified_model, "FLOAT8_TOLERANCE", 1e-6)
    with pytest.raises(ValueError, match="'llama': in float8 base losses: tokens on average differ by"):
        verified(to_sixteen_bit(tiny_model("llama")), start_token=1, max_tokens=64, float8=True)
