"""A tiny seeded model as a GGUF file."""

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

_BYTES = sorted(ByteLevel.alphabet())
_TOKENS = [*_BYTES, "<s>", "</s>", "<|endoftext|>", "<think>", "th"]
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


def tiny_gguf(path: Path, *, pieces: Sequence[tuple[str, float, int]] | None = None) -> Path:
    """Write a GGUF file of a random Llama of two layers with four heads, and a byte-level vocabulary of single bytes,
    one merged pair, three control tokens and a user-defined one; or that of a SentencePiece file with these pieces."""
    n_tokens = len(_TOKENS if pieces is None else pieces)
    bos = 256 if pieces is None else 1
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in [
        (writer.add_block_count, 2), (writer.add_context_length, 64), (writer.add_embedding_length, 32),
        (writer.add_feed_forward_length, 32), (writer.add_head_count, 4), (writer.add_head_count_kv, 2),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_dimension_count, 8), (writer.add_vocab_size, n_tokens),
        (writer.add_bos_token_id, bos), (writer.add_eos_token_id, bos + 1),
    ]:  # fmt: skip
        add(value)
    if pieces is None:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(_TOKENS)
        writer.add_token_types([_NORMAL] * 256 + [_CONTROL] * 3 + [_USER_DEFINED, _NORMAL])
        writer.add_token_merges(["t h"])
    else:
        writer.add_tokenizer_model("llama")
        writer.add_token_list([piece for piece, *_ in pieces])
        writer.add_token_scores([score for _, score, _ in pieces])
        writer.add_token_types([kind for *_, kind in pieces])
    shapes = {"token_embd": (n_tokens, 32), "output_norm": (32,), "output": (n_tokens, 32)}
    for layer in range(2):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in {
            "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32), "attn_norm": (32,),
            "ffn_norm": (32,), "ffn_gate": (32, 32), "ffn_up": (32, 32), "ffn_down": (32, 32)}.items()}  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
