"""Scoring against the naive way, and against the matrix-product ceiling of this very machine, in one run.

python -m benchmarks.bench_scoring                                  # CPU, sample model, sample corpus
python -m benchmarks.bench_scoring --model DIR --tokens 2000000     # a Hugging Face directory (Llama architecture)
python -m benchmarks.bench_scoring --shape 1.7b --device cuda       # random weights, real length distribution

Needs only torch, transformers and numpy where a --shape is given. The naive way is what one would write first: two
resident models, one document at a time, full logits.
"""

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from attninf_assets.influence.engine import TOKEN_BUDGET
from attninf_assets.influence.masking import BASE, Head
from attninf_assets.influence.packing import Window, pack_windows
from attninf_assets.influence.pretrained import choose_device, choose_numeric_class, load_model, load_tokenizer
from attninf_assets.influence.selfcheck import verified

_WINDOW = 4096
_SHAPES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4},
    "1.7b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32},
}


def main() -> None:
    """Print the table of measurements."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, help="a pinned model; default: the sample model")
    arguments.add_argument("--shape", choices=sorted(_SHAPES), help="random weights of this shape instead")
    arguments.add_argument("--device", default=str(choose_device()))
    arguments.add_argument("--documents", type=int, default=40)
    arguments.add_argument("--rounds", type=int, default=3)
    chosen = arguments.parse_args()
    device = torch.device(chosen.device)
    model, documents = _model_and_documents(chosen, device)
    heads = _upper_heads(model.config)
    naive = _Naive(model, heads)
    fast = _Fast(model, heads, token_budget=TOKEN_BUDGET[device.type])
    n_tokens = sum(map(len, documents))

    naive.scores(documents[:2])
    fast.scores(documents[:2])
    rates, found = [], {}
    for _ in range(chosen.rounds):
        ceiling = _ceiling(model.dtype, device)
        row = [ceiling]
        for name, way in (("naive", naive.scores), ("fast", fast.scores)):
            seconds, found[name] = _timed(lambda way=way: way(documents), device)  # type: ignore[misc]
            row.append(n_tokens / seconds)
        rates.append(row)
    ratios = [fast_rate / naive_rate for _, naive_rate, fast_rate in rates]
    flops = useful_flops_per_token(model.config, heads, documents)
    shares = [flops * fast_rate / ceiling for ceiling, _, fast_rate in rates]
    median = [statistics.median(column) for column in zip(*rates, strict=True)]
    print(
        f"{model.config.model_type}, {n_tokens:,} tokens in {len(documents)} documents, {device}, {model.dtype}, "
        f"{torch.get_num_threads()} threads, first masked layer {min(heads).layer} of {model.config.num_hidden_layers}"
    )
    print(
        "| ceiling, GFLOP/s | naive, tokens/s | fast, tokens/s | fast / naive | useful GFLOP a token | of the ceiling |"
    )
    print("|---|---|---|---|---|---|")
    print(
        f"| {median[0] / 1e9:,.0f} | {median[1]:,.0f} | {median[2]:,.0f} | {_range(ratios)} | {flops / 1e9:.3f} "
        f"| {_range(shares)} |"
    )
    print(fidelity(found["fast"], found["naive"]))


def fidelity(found: np.ndarray, expected: np.ndarray) -> str:
    """Rank agreement of two sets of scores, and how much of the top 20 % they share."""
    spearman = float(np.corrcoef(found.argsort().argsort(), expected.argsort().argsort())[0, 1])
    n_top = max(1, math.ceil(0.2 * len(found)))
    shared = len(set(np.argsort(-found)[:n_top]) & set(np.argsort(-expected)[:n_top])) / n_top
    largest = abs(found - expected).max()
    return f"Spearman {spearman:.4f}, {shared:.0%} of the top 20 % in common, largest |Δscore| {largest:.1e}"


def _range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def useful_flops_per_token(config: Any, heads: Sequence[Head], documents: Sequence[Sequence[int]]) -> float:
    """Multiply-adds counted twice: trunk once, two streams above, two vocabulary projections; mean over the tokens."""
    width, head_dim = config.hidden_size, config.head_dim
    projections = width * head_dim * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    layer = 2 * (projections + 3 * width * config.intermediate_size)
    lengths = np.array([len(window) + 1 for d in documents for window in _windows(d)])
    attended = float((lengths * (lengths + 1) / 2).sum() / lengths.sum())  # mean causal prefix
    layer += 4 * attended * config.num_attention_heads * head_dim
    trunk = min(heads).layer
    return trunk * layer + 2 * (config.num_hidden_layers - trunk) * layer + 2 * 2 * width * config.vocab_size


class _Naive:
    """Two models, one document at a time, full logits."""

    def __init__(self, model: Any, heads: Sequence[Head]) -> None:
        self.base = copy.deepcopy(model)
        self.base.set_attn_implementation("sdpa")
        self.reference = copy.deepcopy(self.base)
        size = model.config.head_dim
        for head in heads:  # zero queries attend uniformly
            rows = slice(head.index * size, (head.index + 1) * size)
            self.reference.model.layers[head.layer].self_attn.q_proj.weight.data[rows] = 0

    @torch.inference_mode()
    def scores(self, documents: Sequence[Sequence[int]]) -> np.ndarray:
        found = []
        for document in documents:
            losses = np.zeros(2)
            for window in _windows(document):
                ids = torch.tensor([[1, *window]], device=self.base.device)
                for stream, model in enumerate((self.base, self.reference)):
                    logits = model(ids, use_cache=False).logits[0, :-1].float()
                    losses[stream] += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            found.append((losses[1] - losses[0]) / losses[0])
        return np.array(found)


class _Fast:
    """The engine: packed, trunk shared, losses from tiles of the vocabulary."""

    def __init__(self, model: Any, heads: Sequence[Head], *, token_budget: int) -> None:
        self.model = verified(copy.deepcopy(model), start_token=1, max_tokens=_WINDOW)
        self.heads = frozenset(heads)
        self.token_budget = token_budget

    def scores(self, documents: Sequence[Sequence[int]]) -> np.ndarray:
        losses_SN = np.zeros((2, len(documents)))
        windows = [Window(number, window) for number, d in enumerate(documents) for window in _windows(d)]
        for pack in pack_windows(windows, token_budget=self.token_budget, start_token=1):
            losses_SR = self.model.losses_SR(pack, [BASE, self.heads]).double().cpu().numpy()
            ends = np.cumsum([len(window.token_ids) for window in pack.windows])[:-1]
            for window, part in zip(pack.windows, np.split(losses_SR, ends, axis=1), strict=True):
                losses_SN[:, window.document] += part.sum(axis=1)
        return (losses_SN[1] - losses_SN[0]) / losses_SN[0]


def _windows(document: Sequence[int]) -> list[Sequence[int]]:
    return [document[start : start + _WINDOW] for start in range(0, len(document), _WINDOW)]


def _timed(work: Callable[[], np.ndarray], device: torch.device) -> tuple[float, np.ndarray]:
    started = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def _ceiling(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of a large square matrix product, the best of five."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = min(_timed(lambda: a @ b, device)[0] for _ in range(6))
    return 2 * size**3 / best


def _upper_heads(config: Any) -> list[Head]:
    """5 % of all heads, from 57 % of the depth up, where the sample model's retrieval heads begin."""
    n = math.ceil(config.num_hidden_layers * config.num_attention_heads / 20)
    first = round(0.567 * config.num_hidden_layers)
    layers = range(first, config.num_hidden_layers)
    return [Head(layers[i % len(layers)], (i * 7) % config.num_attention_heads) for i in range(n)]


def _model_and_documents(chosen: argparse.Namespace, device: torch.device) -> tuple[Any, list[list[int]]]:
    numeric_class = choose_numeric_class(device)
    if chosen.shape is not None:
        torch.manual_seed(0)
        config = LlamaConfig(**_SHAPES[chosen.shape], vocab_size=49152, max_position_embeddings=8192)
        model = LlamaForCausalLM(config).to(dtype=getattr(torch, numeric_class), device=device).eval()
        rng = np.random.default_rng(0)
        lengths = np.minimum(rng.lognormal(math.log(600), 0.9, chosen.documents).astype(int) + 1, _WINDOW)
        return model, [rng.integers(3, 49152, n).tolist() for n in lengths]
    from benchmarks.sample import sample_model_directory, sample_texts  # noqa: PLC0415, not needed with a --shape

    directory = chosen.model or sample_model_directory()
    texts = sample_texts()[: chosen.documents]
    tokenized = load_tokenizer(directory)(texts, add_special_tokens=False)["input_ids"]
    return load_model(directory, numeric_class=numeric_class, device=device), tokenized


if __name__ == "__main__":
    main()
