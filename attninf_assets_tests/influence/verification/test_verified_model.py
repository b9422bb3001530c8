from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attninf_assets.influence.model import attention, kernels, sixteen_bit
from attninf_assets.influence.model.head import BASE, Head
from attninf_assets.influence.model.kernels import Documents, Kernel, Logits, document_by_document
from attninf_assets.influence.model.mixed_precision import product_type, to_sixteen_bit
from attninf_assets.influence.model.packing import Window, pack
from attninf_assets.influence.model.pretrained import load_model
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.verification import architecture, verified_model
from attninf_assets.influence.verification.residual import require_float32_residual
from attninf_assets.influence.verification.verified_model import verified
from attninf_assets_tests.support.tiny_models import REFUSED, SUPPORTED, UNSHARED, WINDOW, tiny_model

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]


def check(model: Any, *, max_tokens: int = 64) -> StreamedModel:
    return verified(model, start_token=1, max_tokens=max_tokens)


@pytest.mark.parametrize("name", SUPPORTED)
def test_every_supported_architecture_is_verified_and_its_trunk_shared_where_it_can_be(name: str) -> None:
    assert check(tiny_model(name)).share_trunk == (name not in UNSHARED)


@pytest.mark.parametrize("name", SUPPORTED)
def test_a_verified_model_is_ready_to_score(name: str) -> None:
    model = check(tiny_model(name))
    packed = pack([Window(0, [5, 6, 7])], start_token=1)
    streams = [BASE, frozenset({Head(1, 1)})]
    fresh = StreamedModel(tiny_model(name), share_trunk=False)
    torch.testing.assert_close(model.losses_SR(packed, streams), fresh.losses_SR(packed, streams))


def test_a_residual_stream_in_16_bits_is_refused_by_name() -> None:
    with pytest.raises(
        ValueError, match=r"'llama': Embedding model\.embed_tokens has 16-bit weights.* use numeric_class f"
    ):
        check(tiny_model("llama").to(torch.bfloat16))


@pytest.mark.parametrize("kept", [True, False])
def test_a_layer_that_rounds_the_residual_stream_is_refused_by_its_number(kept: bool) -> None:
    """To bfloat16, and where that is hidden back to float32, as a forward pass that casts does."""
    model = to_sixteen_bit(tiny_model("gemma2"))
    model.model.layers[1].register_forward_hook(lambda *a: a[2].bfloat16() if kept else a[2].bfloat16().float())
    fault = "puts out torch.bfloat16" if kept else "rounds what it puts out to bfloat16"
    with pytest.raises(ValueError, match=f"architecture 'gemma2': layer 1 {fault}"):
        require_float32_residual(StreamedModel(model), pack([Window(0, [5, 6, 7])], start_token=1))


def test_a_last_norm_that_rounds_is_refused() -> None:
    model = to_sixteen_bit(tiny_model("llama"))
    model.model.norm.register_forward_hook(lambda *a: a[2].bfloat16())
    with pytest.raises(ValueError, match=r"'llama': its last norm puts out torch\.bfloat16"):
        require_float32_residual(StreamedModel(model), pack([Window(0, [5, 6, 7])], start_token=1))


def test_16_bit_products_that_compute_something_else_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    own = sixteen_bit.operand
    monkeypatch.setattr(sixteen_bit, "operand", lambda x: 1.5 * own(x))
    with pytest.raises(ValueError, match="'llama': in 16 bits base losses: tokens on average differ by"):
        check(to_sixteen_bit(tiny_model("llama")))


@pytest.mark.parametrize(
    ("name", "reason"),
    {
        "bloom": r"bypasses transformers' attention interface in layers \[0, 1, 2\]",
        "falcon": r"bypasses transformers' attention interface in layers \[0, 1, 2\]",
        "gptj": r"bypasses transformers' attention interface in layers \[0, 1, 2\]",
        "lfm2": r"bypasses transformers' attention interface in layers \[0, 2\]",
        "mamba": "has no attention heads",
        "llama4_text": "found no base model",
        "bert": "packed losses against its own eager attention",  # it sees the future
    }.items(),
)
def test_architectures_whose_heads_cannot_be_masked_are_refused_by_name(name: str, reason: str) -> None:
    assert name in REFUSED
    with pytest.raises(ValueError, match=f"architecture '{name}':? {reason}"):
        check(tiny_model(name))


def test_running_out_of_memory_is_not_taken_for_a_trunk_that_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    own = StreamedModel.losses_SR

    def losses(self: StreamedModel, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.share_trunk:
            raise torch.OutOfMemoryError("no room")
        return own(self, *args, **kwargs)

    monkeypatch.setattr(StreamedModel, "losses_SR", losses)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        check(tiny_model("llama"))


def test_a_model_with_one_layer_that_bypasses_the_interface_is_refused_with_the_layer() -> None:
    model = tiny_model("llama")
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(ValueError, match=r"'llama' bypasses transformers' attention interface in layers \[1\]"):
        check(model)


def test_weights_that_give_no_finite_loss_are_refused() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"'llama'.*not finite"):
        check(model)


def test_attention_that_knows_something_ours_does_not_is_refused() -> None:
    """A bias that the model's own attention adds and hands to the interface as an argument we do not know."""
    model = tiny_model("llama")
    of_layer = model.model.layers[2].self_attn
    own = of_layer.forward

    def forward(**kwargs: Any) -> Any:
        out, weights = own(**kwargs)
        biased = model.config._attn_implementation == "eager"
        return (1.5 * out if biased else out), weights

    of_layer.forward = forward
    with pytest.raises(ValueError, match=r"'llama': packed losses .* differs by .* nats, more than 0\.002"):
        check(model)


def wrong_running_mean(value_SKTD: torch.Tensor, *, window: int | None) -> torch.Tensor:
    return value_SKTD.cumsum(dim=2)


def never_finite(q_SHLD: torch.Tensor, *_: Any) -> torch.Tensor:
    return q_SHLD * torch.nan


def seeing_too_far(queries_Q: torch.Tensor, keys_K: torch.Tensor, window: int | None) -> torch.Tensor:
    distance = queries_Q[:, None] - keys_K[None, :]
    return (distance >= 0) & (True if window is None else distance <= window)


@pytest.mark.parametrize(
    ("name", "module", "function", "wrong", "message"),
    [
        ("gpt_oss", attention, "running_mean_of_values", wrong_running_mean, "masked losses against explicit"),
        ("llama", kernels, "_attend", never_finite, "packed losses .* not finite"),
        ("mistral", kernels, "visible_QK", seeing_too_far, "packed losses against its own eager attention"),
        ("gpt_oss", architecture, "visible_QK", seeing_too_far, "masked losses against explicit"),
    ],
)
def test_a_fault_of_our_own_in_what_a_head_sees_is_caught(
    name: str, module: Any, function: str, wrong: Callable[..., Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, function, wrong)
    with pytest.raises(ValueError, match=f"'{name}': {message}"):
        check(tiny_model(name))


def test_windows_that_no_document_can_reach_are_not_paid_for() -> None:
    config = tiny_model("mistral").config
    assert architecture._length_beyond_windows(config, 64) > WINDOW
    assert architecture._length_beyond_windows(config, WINDOW) <= WINDOW
    assert architecture._length_beyond_windows(config, 3) == 3


def test_a_trunk_that_cannot_be_shared_is_not() -> None:
    """A model whose last layer mixes in the row before: one row more in the batch, and it computes something else."""
    model = tiny_model("llama")
    layer = model.model.layers[2]
    own = layer.forward
    seen: dict[str, int] = {}
    model.model.layers[0].register_forward_pre_hook(lambda _, args: seen.update(rows=args[0].shape[0]))

    def forward(hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        out = own(hidden_states, **kwargs)
        return out if hidden_states.shape[0] == seen["rows"] else out + hidden_states.flip(0)

    layer.forward = forward
    assert not check(model).share_trunk


def test_a_trunk_that_bears_one_split_and_no_second_is_not_shared() -> None:
    """A model whose last layer adds what the one before it kept, row by row: rows that split in between have none."""
    model = tiny_model("llama")
    kept: list[torch.Tensor] = []
    model.model.layers[1].register_forward_hook(lambda _, _args, out: kept.append(out))
    model.model.layers[2].register_forward_hook(lambda _, _args, out: out + kept.pop())
    assert not check(model).share_trunk


@pytest.mark.sample
def test_a_real_model_in_bfloat16_is_verified_though_its_tokens_are_noisy(sample_directory: Path) -> None:
    model = load_model(sample_directory, numeric_class="bfloat16", device=torch.device("cpu"))
    before = [(parameter, parameter.clone()) for parameter in model.parameters()]
    assert check(model).share_trunk
    assert all(torch.equal(now, then) for now, then in before)
    assert product_type(model) == torch.bfloat16
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_where_float32_does_not_fit_the_check_is_rough_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = to_sixteen_bit(tiny_model("llama"))
    before = [(parameter, parameter.clone()) for parameter in model.parameters()]
    own, exactly = architecture._own_losses, []

    def too_much(model: Any, ids: torch.Tensor) -> torch.Tensor:
        exactly.append(product_type(model) == torch.float32)
        if exactly[-1]:
            raise RuntimeError("MPS backend out of memory")
        return own(model, ids)

    monkeypatch.setattr(architecture, "_own_losses", too_much)
    assert check(model).share_trunk
    assert exactly[0]
    assert not any(exactly[1:])
    assert "no room on cpu to check the model in float32: it is checked in torch.bfloat16" in caplog.text
    assert all(torch.equal(now, then) for now, then in before)


def off_by_a_little(*arguments: Any) -> torch.Tensor:
    return 1.1 * document_by_document(*arguments)


def not_a_number(*arguments: Any) -> torch.Tensor:
    return torch.nan * document_by_document(*arguments)


def unavailable(*arguments: Any) -> torch.Tensor:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")


def another(*arguments: Any) -> torch.Tensor:
    return document_by_document(*arguments)


def window_too_long(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, documents: Documents, logits: Logits
) -> torch.Tensor:
    window = None if logits.window is None else logits.window + 1
    return document_by_document(q, k, v, documents, replace(logits, window=window))


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (window_too_long, "window_too_long is not used: it is off by"),
        (off_by_a_little, "off_by_a_little is not used: it is off by 0.1 of the output"),
        (not_a_number, "not_a_number is not used: it is off by inf"),
        (unavailable, "unavailable is not used: FlashAttention only supports"),
    ],
)
def test_a_kernel_that_fails_or_disagrees_gives_way_to_the_next(
    kernel: Kernel, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(verified_model, "kernels_for", lambda *_: [kernel, another, document_by_document])
    assert check(tiny_model("llama")).kernel is another
    assert said in caplog.text
