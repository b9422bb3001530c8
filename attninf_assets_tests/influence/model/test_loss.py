from typing import Any

import pytest
import torch
import transformers as tf

from attninf_assets.influence.model.loss import predicted_R, token_losses_R
from attninf_assets_tests.support.tiny_models import tiny_model


def plain_losses(hidden_RC: torch.Tensor, targets_R: torch.Tensor, logits_RV: torch.Tensor) -> torch.Tensor:
    return torch.stack([-row.log_softmax(0)[target] for row, target in zip(logits_RV, targets_R, strict=True)])


def wide_model(**settings: Any) -> Any:
    """A vocabulary of two tiles and a bit."""
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=8200, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        initializer_range=1.0, **settings,
    )  # fmt: skip
    return tf.LlamaForCausalLM(config).eval()


@torch.inference_mode()
def test_losses_over_several_tiles_and_row_blocks_equal_log_softmax() -> None:
    model = wide_model()
    hidden_RC, targets_R = torch.randn(1030, 8), torch.randint(0, 8200, (1030,))
    targets_R[:4] = torch.tensor([0, 4095, 4096, 8199])
    found = token_losses_R(hidden_RC, targets_R, model)
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found, plain_losses(hidden_RC, targets_R, model.lm_head(hidden_RC)), atol=1e-5, rtol=1e-5
    )


@torch.inference_mode()
@pytest.mark.parametrize("name", ["granite", "cohere", "gemma2", "phi", "gpt_neox", "gpt2", "llama_tied"])
def test_losses_include_what_the_architecture_does_to_its_logits(name: str) -> None:
    """Granite divides, Cohere multiplies, Gemma caps, Phi has a bias."""
    model = tiny_model(name)
    ids_1T = torch.randint(0, model.config.vocab_size, (1, 12))
    targets_R = torch.randint(0, model.config.vocab_size, (12,))
    expected = plain_losses(ids_1T, targets_R, model(input_ids=ids_1T).logits[0])
    hidden_RC = model.base_model(input_ids=ids_1T).last_hidden_state[0]
    torch.testing.assert_close(token_losses_R(hidden_RC, targets_R, model), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["granite", "cohere", "gemma2", "phi", "llama"])
def test_the_predicted_token_is_the_models_own_argmax(name: str) -> None:
    model = tiny_model(name)
    ids_1T = torch.randint(0, model.config.vocab_size, (1, 12))
    hidden_RC = model.base_model(input_ids=ids_1T).last_hidden_state[0]
    assert torch.equal(predicted_R(hidden_RC, model), model(input_ids=ids_1T).logits[0].argmax(-1))


@torch.inference_mode()
def test_losses_of_bfloat16_weights_are_float32_sums() -> None:
    model = wide_model().to(torch.bfloat16)
    hidden_RC, targets_R = torch.randn(20, 8).bfloat16(), torch.randint(0, 8200, (20,))
    found = token_losses_R(hidden_RC, targets_R, model)
    expected = plain_losses(hidden_RC, targets_R, hidden_RC.float() @ model.lm_head.weight.float().T)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_no_targets_have_no_losses() -> None:
    losses = token_losses_R(torch.zeros(0, 8), torch.zeros(0, dtype=torch.int64), wide_model())
    assert losses.shape == (0,)
    assert losses.dtype == torch.float32


@torch.inference_mode()
def test_sure_tokens_have_no_noise_in_their_loss_in_bfloat16() -> None:
    """A target far above all others: its loss is what float32 logits make it, never negative, never noise."""
    model = wide_model().to(torch.bfloat16)
    targets_R = torch.randint(0, 8200, (64,))
    weight_VC = model.lm_head.weight
    hidden_RC = 40 * weight_VC[targets_R] / weight_VC[targets_R].float().square().sum(-1, keepdim=True)
    hidden_RC = hidden_RC.to(torch.bfloat16)
    expected = plain_losses(hidden_RC, targets_R, hidden_RC.float() @ weight_VC.float().T)
    found = token_losses_R(hidden_RC, targets_R, model)
    assert (found >= 0).all()
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
