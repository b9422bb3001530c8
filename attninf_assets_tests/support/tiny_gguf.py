"""A tiny seeded model as a GGUF file."""

from pathlib import Path

import gguf
import numpy as np


def tiny_gguf(path: Path) -> Path:
    """Write a GGUF file of a random Llama of two layers with four heads, and a vocabulary of single characters."""
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in [
        (writer.add_block_count, 2), (writer.add_context_length, 64), (writer.add_embedding_length, 32),
        (writer.add_feed_forward_length, 32), (writer.add_head_count, 4), (writer.add_head_count_kv, 2),
        (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_rope_dimension_count, 8), (writer.add_vocab_size, 259),
        (writer.add_bos_token_id, 256), (writer.add_eos_token_id, 257), (writer.add_unk_token_id, 256),
    ]:  # fmt: skip
        add(value)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([chr(256 + i) for i in range(255)] + [chr(256) + chr(257), "<s>", "</s>", "<|endoftext|>"])
    writer.add_token_merges([f"{chr(256)} {chr(257)}"])
    shapes = {"token_embd": (259, 32), "output_norm": (32,), "output": (259, 32)}
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
