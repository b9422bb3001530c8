from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence.acceleration import onednn
from attninf_assets.influence.acceleration.onednn import OneDnnLinear, has_onednn, onednn_tiles, restore, to_onednn
from attninf_assets.influence.model import loss
from attninf_assets.influence.model.head import BASE, Head
from attninf_assets.influence.model.layers import decoder_layers, linear_layers
from attninf_assets.influence.model.loss import token_losses_R
from attninf_assets.influence.model.mixed_precision import to_sixteen_bit
from attninf_assets.influence.model.packing import Window, pack
from attninf_assets.influence.model.sixteen_bit import SixteenBitLinear
from attninf_assets.influence.verification import verified_model
from attninf_assets.influence.verification.verified_model import verified
from attninf_assets_tests.support.tiny_models import SUPPORTED, tiny_model

pytestmark = pytest.mark.skipif(not has_onednn(torch.device("cpu")), reason="this build of torch has no oneDNN")
PACKED = pack([Window(0, list(range(3, 40))), Window(1, [7, 8])], start_token=1)
STREAMS = [BASE, frozenset({Head(1, 0)})]


def converted(model: Any) -> int:
    return sum(isinstance(module, OneDnnLinear) for module in model.modules())


@settings(deadline=None)
@given(
    rows=st.integers(1, 70),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    bias=st.booleans(),
    layout=st.sampled_from(["whole", "transposed", "expanded", "sliced"]),
)
@torch.inference_mode()
def test_a_onednn_layer_is_the_layer_whatever_its_sizes_and_however_its_input_lies(
    rows: int, inputs: int, outputs: int, bias: bool, layout: str
) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(inputs, outputs).T, torch.randn(2, rows, inputs)
    x = {
        "whole": x,
        "transposed": x.transpose(1, 2).contiguous().transpose(1, 2),
        "expanded": x[:1].expand(2, -1, -1),
        "sliced": torch.randn(2, rows, inputs + 3)[:, :, 2:-1],
    }[layout]
    b = torch.randn(outputs) if bias else None
    expected = x.double() @ weight.double().T + (0 if b is None else b.double())
    torch.testing.assert_close(OneDnnLinear(weight, b)(x).double(), expected, atol=1e-4, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("sixteen_bit", [False, True])
@pytest.mark.parametrize("name", ["granite", "cohere", "gemma2", "phi", "gpt2", "llama_tied"])
def test_losses_from_onednn_tiles_are_those_of_the_plain_projection(
    name: str, sixteen_bit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which phi's has a bias, and the last tile is smaller than the others."""
    monkeypatch.setattr(loss, "_TILE", 100)
    model = to_sixteen_bit(tiny_model(name)) if sixteen_bit else tiny_model(name)
    hidden = torch.randn(30, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, model.config.vocab_size, (30,), generator=torch.Generator().manual_seed(1))
    tiles = onednn_tiles(model)
    assert len(tiles) == -(-model.config.vocab_size // 100) > 1
    found = token_losses_R(hidden, targets, model, tiles=tiles)
    torch.testing.assert_close(found, token_losses_R(hidden, targets, model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_architecture_is_scored_alike_by_both_libraries(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = verified(tiny_model(name), start_token=1, max_tokens=64)
    assert converted(model.model) == len(linear_layers(decoder_layers(tiny_model(name)))) > 0
    monkeypatch.setattr(verified_model, "has_onednn", lambda _: False)
    plain = verified(tiny_model(name), start_token=1, max_tokens=64)
    assert converted(plain.model) == 0
    assert model.flops == plain.flops
    torch.testing.assert_close(model.losses_SR(PACKED, STREAMS), plain.losses_SR(PACKED, STREAMS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("has_instructions", [True, False])
def test_a_16_bit_layer_is_the_same_by_onednn_whether_it_may_use_16_bit_instructions_or_not(
    has_instructions: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "cpu_multiplies_bfloat16", lambda: has_instructions)
    allowed: list[str] = []
    own = onednn.onednn_linear

    def seen(*arguments: Any) -> torch.Tensor:
        allowed.append(torch.backends.mkldnn.matmul.fp32_precision)
        return own(*arguments)

    monkeypatch.setattr(onednn, "onednn_linear", seen)
    torch.manual_seed(0)
    layer, x = SixteenBitLinear(torch.randn(48, 32), torch.randn(48) if bias else None), torch.randn(2, 7, 32)
    before = torch.backends.mkldnn.matmul.fp32_precision
    with torch.inference_mode():
        found = OneDnnLinear(layer.weight, layer.bias)(x)
        torch.testing.assert_close(found, layer(x), atol=1e-5, rtol=1e-5)
    assert allowed == ["bf16" if has_instructions else before]
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_what_was_replaced_can_be_put_back() -> None:
    model = tiny_model("llama")
    before = dict(model.named_modules())
    replaced = to_onednn(model)
    assert converted(model) == len(replaced) > 0
    restore(replaced)
    assert dict(model.named_modules()) == before


def test_where_onednn_disagrees_the_model_runs_without_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        verified_model, "onednn_tiles", lambda model: [tile for tile in onednn_tiles(model) for _ in "12"]
    )
    model = verified(tiny_model("llama"), start_token=1, max_tokens=64)
    assert "oneDNN is not used: architecture 'llama': oneDNN: a token differs by" in caplog.text
    assert converted(model.model) == 0
    monkeypatch.setattr(verified_model, "has_onednn", lambda _: False)
    plain = verified(tiny_model("llama"), start_token=1, max_tokens=64)
    assert torch.equal(model.losses_SR(PACKED, STREAMS), plain.losses_SR(PACKED, STREAMS))
