"""A language model built by hand in which exactly one head retrieves from context.

Two layers without MLPs. The residual stream has blocks: the token, a constant, the token before it, the token before
that, and the prediction. Layer 0's heads 0 and 1 look one and two positions back (rotary attention from the constant)
and write what they find into their blocks. Layer 1 has no positions; its head `PLANTED` looks for the position whose
two preceding tokens are the current one and the one before (induction) and predicts the token there. All other heads
have small random weights and write nothing.
"""

import math
from functools import cache
from typing import Any

import torch
import transformers as tf

from attninf_assets.influence.model.head import Head
from benchmarks.rigs.made_up_text import VOCAB

PLANTED = Head(1, 2)
N_LAYERS, N_HEADS = 2, 4
_E = 64  # size of a token's embedding
_D = 2 * _E  # head dimension
_TOKEN, _BEFORE, _BEFORE_THAT, _PREDICTION, _CONSTANT = (slice(i * _E, (i + 1) * _E) for i in range(5))
_HIDDEN = 5 * _E


@cache
def planted_model() -> Any:
    """The model, float32, for `tiny_models.tiny_tokenizer()`'s vocabulary. Treat as read-only: it is shared."""
    config = tf.SmolLM3Config(
        vocab_size=VOCAB, hidden_size=_HIDDEN, intermediate_size=1, num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS, num_key_value_heads=N_HEADS, head_dim=_D, max_position_embeddings=1024,
        no_rope_layers=[1, 0], rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=1, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model: Any = tf.SmolLM3ForCausalLM(config).eval()
        embedding_VE = torch.nn.functional.normalize(torch.randn(VOCAB, _E), dim=-1)
        _fill(model, embedding_VE)
    return model


def _fill(model: Any, embedding_VE: torch.Tensor) -> None:
    model.model.embed_tokens.weight.zero_()
    model.model.embed_tokens.weight[:, _TOKEN] = embedding_VE
    model.model.embed_tokens.weight[:, _CONSTANT.start] = 1
    model.lm_head.weight.zero_()
    model.lm_head.weight[:, _PREDICTION] = 4 * embedding_VE
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.zero_()
        layer.self_attn.o_proj.weight.zero_()
    identity = torch.eye(_E)
    for head, (distance, block) in enumerate([(1, _BEFORE), (2, _BEFORE_THAT)]):
        _look_back(model.model.layers[0].self_attn, head, distance)
        _copy_token(model.model.layers[0].self_attn, head, block)
    induction = model.model.layers[1].self_attn
    rows = slice(PLANTED.index * _D, (PLANTED.index + 1) * _D)
    for projection, first, second in [
        (induction.q_proj, _TOKEN, _BEFORE),
        (induction.k_proj, _BEFORE, _BEFORE_THAT),
    ]:
        projection.weight[rows] = 0
        projection.weight[rows][:_E, first] = 10 * identity
        projection.weight[rows][_E:, second] = 10 * identity
    _copy_token(induction, PLANTED.index, _PREDICTION)


def _look_back(attention: Any, head: int, distance: int) -> None:
    """Queries and keys made of the constant alone, the query turned so that its best match is `distance` back."""
    angles = distance * 10000.0 ** (-torch.arange(_D // 2) / (_D // 2))
    rows = slice(head * _D, (head + 1) * _D)
    for projection, vector in [
        (attention.q_proj, torch.cat([angles.cos(), -angles.sin()])),
        (attention.k_proj, torch.cat([torch.ones(_D // 2), torch.zeros(_D // 2)])),
    ]:
        projection.weight[rows] = 0
        projection.weight[rows, _CONSTANT.start] = 2 * math.sqrt(_D) / 4 * vector


def _copy_token(attention: Any, head: int, block: slice) -> None:
    """The head's output is the attended token's embedding, written into `block` of the residual stream."""
    attention.v_proj.weight[head * _D : (head + 1) * _D] = 0
    attention.v_proj.weight[head * _D : head * _D + _E, _TOKEN] = torch.eye(_E)
    attention.o_proj.weight[block, head * _D : head * _D + _E] = torch.eye(_E)
