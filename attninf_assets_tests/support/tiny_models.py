"""Tiny seeded models of many architectures, and a tiny tokenizer: stand-ins for a real selector.

Weights are drawn wide enough that attention is far from uniform, so that a wrong mask shows in the losses.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as tf

from benchmarks.rigs.made_up_text import VOCAB, tiny_tokenizer

N_LAYERS, N_HEADS, N_KEY_HEADS, HEAD_SIZE = 3, 4, 2, 8
WINDOW = 7  # sliding window, shorter than the documents of the tests
CONTEXT = 256

_SHAPE = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS, "num_key_value_heads": N_KEY_HEADS, "head_dim": HEAD_SIZE,
    "max_position_embeddings": CONTEXT, "initializer_range": 0.3,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_MULTI_HEAD = {key: value for key, value in _SHAPE.items() if key not in ("num_key_value_heads", "head_dim")}
_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]
_GPT2 = {
    "vocab_size": VOCAB, "n_embd": 32, "n_layer": N_LAYERS, "n_head": N_HEADS, "n_positions": CONTEXT,
    "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

SUPPORTED: Mapping[str, Callable[[], Any]] = {
    "llama": lambda: tf.LlamaConfig(**_SHAPE),
    "llama_tied": lambda: tf.LlamaConfig(**_SHAPE, tie_word_embeddings=True),
    "mistral": lambda: tf.MistralConfig(**_SHAPE, sliding_window=WINDOW),
    "qwen2": lambda: tf.Qwen2Config(**_SHAPE),
    "qwen3": lambda: tf.Qwen3Config(**_SHAPE),
    "gemma2": lambda: tf.Gemma2Config(
        **_SHAPE, sliding_window=WINDOW, layer_types=_ALTERNATING, query_pre_attn_scalar=HEAD_SIZE,
        attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
    ),
    "gemma3_text": lambda: tf.Gemma3TextConfig(
        **_SHAPE, sliding_window=WINDOW, layer_types=_ALTERNATING, query_pre_attn_scalar=HEAD_SIZE
    ),
    "phi3": lambda: tf.Phi3Config(**{k: v for k, v in _SHAPE.items() if k != "head_dim"}, sliding_window=WINDOW),
    "olmo2": lambda: tf.Olmo2Config(**_SHAPE),
    "gpt_neox": lambda: tf.GPTNeoXConfig(**_MULTI_HEAD),
    "gpt2": lambda: tf.GPT2Config(**_GPT2),
    "smollm3": lambda: tf.SmolLM3Config(**_SHAPE, no_rope_layers=[1, 0, 1]),
    "gpt_oss": lambda: tf.GptOssConfig(
        **_SHAPE, sliding_window=WINDOW, layer_types=_ALTERNATING, num_local_experts=2, num_experts_per_tok=1
    ),
    "granite": lambda: tf.GraniteConfig(**{k: v for k, v in _SHAPE.items() if k != "head_dim"}, logits_scaling=2.0),
    "cohere": lambda: tf.CohereConfig(**{k: v for k, v in _SHAPE.items() if k != "head_dim"}, logit_scale=0.25),
    "opt": lambda: tf.OPTConfig(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=N_LAYERS, num_attention_heads=N_HEADS,
        max_position_embeddings=CONTEXT, init_std=0.3,
    ),
    "deepseek_v3": lambda: tf.DeepseekV3Config(
        **(_MULTI_HEAD | {"num_key_value_heads": N_HEADS}), moe_intermediate_size=16, n_routed_experts=4, n_group=1,
        topk_group=1, num_experts_per_tok=1, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4,
        v_head_dim=8, first_k_dense_replace=1,
    ),
    "gpt_bigcode": lambda: tf.GPTBigCodeConfig(**_GPT2),
    "phi": lambda: tf.PhiConfig(**{k: v for k, v in _SHAPE.items() if k != "head_dim"}),
}  # fmt: skip

UNSHARED = {"gpt_bigcode"}  # what their layers keep does not broadcast over streams

REFUSED: Mapping[str, Callable[[], Any]] = {
    "bloom": lambda: tf.BloomConfig(vocab_size=VOCAB, hidden_size=32, n_layer=N_LAYERS, n_head=N_HEADS),
    "falcon": lambda: tf.FalconConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=N_LAYERS, num_attention_heads=N_HEADS
    ),
    "gptj": lambda: tf.GPTJConfig(**(_GPT2 | {"rotary_dim": 4})),
    "lfm2": lambda: tf.Lfm2Config(
        **{k: v for k, v in _SHAPE.items() if k != "head_dim"}, layer_types=["conv", "full_attention", "conv"]
    ),
    "mamba": lambda: tf.MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=N_LAYERS, state_size=4),
    "llama4_text": lambda: tf.Llama4TextConfig(**_SHAPE, num_local_experts=2, intermediate_size_mlp=48),
    "bert": lambda: tf.BertConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=N_LAYERS, num_attention_heads=N_HEADS, intermediate_size=48
    ),
}


@torch.no_grad()
def tiny_model(name: str, *, seed: int = 0) -> Any:
    """A random float32 model of a supported or refused architecture, in evaluation mode."""
    config = (SUPPORTED | REFUSED)[name]()  # type: ignore[operator]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "sinks" in parameter_name:  # biases, norms and sinks start constant
                torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    return model.eval()


def save_tiny_model(directory: Path, *, name: str = "llama", seed: int = 0, bos: bool = True) -> Path:
    """A Hugging Face directory of a tiny model and its tokenizer."""
    tiny_model(name, seed=seed).save_pretrained(directory)
    tiny_tokenizer(bos=bos).save_pretrained(directory)
    return directory
