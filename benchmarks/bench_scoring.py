"""Scoring against the naive way, and against the matrix-product ceiling of this very machine, in one run.

python -m benchmarks.bench_scoring                                  # CPU, sample model, sample corpus
python -m benchmarks.bench_scoring --model DIR --documents 400      # a Hugging Face directory (Llama architecture)
python -m benchmarks.bench_scoring --shape 1.7b --device cuda       # random weights, real length distribution

Needs only torch, transformers and numpy where a --shape is given. The naive way is what one would write first: two
resident models, one document at a time, full logits. The ways take turns, and each is held against the ceiling
measured just before and after it.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from attninf_assets.influence.allocator import keep_freed_memory, set_thresholds
from attninf_assets.influence.arriving import Arriving, one_behind
from attninf_assets.influence.budget import TokenBudget, in_budget
from attninf_assets.influence.flops import measured_peak
from attninf_assets.influence.masking import BASE, Head
from attninf_assets.influence.packing import Window, longest_first, pack
from attninf_assets.influence.selfcheck import verified
from benchmarks.fidelity import fidelity
from benchmarks.subjects import START, WINDOW, Subject, add_arguments, chosen_subject, windows_of


def main() -> None:
    """Print the table of measurements."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(arguments, documents=24)
    arguments.add_argument("--rounds", type=int, default=3)
    chosen = arguments.parse_args()
    subject = chosen_subject(chosen)
    naive, fast = Naive(subject.model, subject.heads), Fast(subject)
    print(f"{subject}, kernel {fast.model.kernel.__name__}, trunk shared: {fast.model.share_trunk}", flush=True)
    naive.scores(subject.documents[-2:])
    fast.scores(subject.documents[-2:])
    naive_rates, fast_rates, ceilings, scores = [], [], [], {}
    for _ in range(chosen.rounds):
        set_thresholds(mmap=128 * 1024, trim=128 * 1024)  # glibc's defaults: the naive way leaves them alone
        seconds, scores["naive"], _ = _timed(lambda: naive.scores(subject.documents), subject)
        naive_rates.append(subject.n_tokens / seconds)
        keep_freed_memory()
        seconds, scores["fast"], ceiling = _timed(lambda: fast.scores(subject.documents), subject)
        fast_rates.append(subject.n_tokens / seconds)
        ceilings.append(ceiling)
    flops = fast.flops / subject.n_tokens
    ratios = [one / other for one, other in zip(fast_rates, naive_rates, strict=True)]
    shares = [flops * rate / ceiling for rate, ceiling in zip(fast_rates, ceilings, strict=True)]
    print(
        "| ceiling, GFLOP/s | naive, tokens/s | fast, tokens/s | fast / naive | useful GFLOP a token | of the ceiling |"
    )
    print("|---|---|---|---|---|---|")
    medians = [statistics.median(column) for column in (ceilings, naive_rates, fast_rates)]
    print(
        f"| {medians[0] / 1e9:,.0f} | {medians[1]:,.0f} | {medians[2]:,.0f} | {_range(ratios)} | {flops / 1e9:.3f} "
        f"| {_range(shares)} |"
    )
    print(fidelity(scores["fast"], scores["naive"]))


class Naive:
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
            for window in windows_of(document):
                ids = torch.tensor([[START, *window]], device=self.base.device)
                for stream, model in enumerate((self.base, self.reference)):
                    logits = model(ids, use_cache=False).logits[0, :-1].float()
                    losses[stream] += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            found.append((losses[1] - losses[0]) / losses[0])
        return np.array(found)


class Fast:
    """The engine: packed, trunk shared, losses from tiles of the vocabulary."""

    def __init__(self, subject: Subject) -> None:
        self.model = verified(copy.deepcopy(subject.model), start_token=START, max_tokens=WINDOW, fusing=subject.fusing)
        self.streams = [BASE, frozenset(subject.heads)]
        self.budget = TokenBudget(subject.token_budget)
        self.flops = 0.0  # useful ones of the latest pass over the documents

    def scores(self, documents: Sequence[Sequence[int]]) -> np.ndarray:
        losses_SN = np.zeros((2, len(documents)))
        self.flops = 0.0
        windows = [Window(number, np.array(w)) for number, d in enumerate(documents) for w in windows_of(d)]

        def losses(windows: list[Window]) -> tuple[list[Window], Arriving]:
            packed = pack(windows, start_token=START)
            self.flops += self.model.useful_flops(packed, self.streams)
            return windows, Arriving(self.model.losses_SR(packed, self.streams))

        passes = in_budget(
            longest_first(windows),
            losses,
            size=lambda window: window.n_tokens,
            budget=self.budget,
            device=self.model.device,
            on_halved=print,
        )
        for done, losses_SR in one_behind(passes):
            ends = np.cumsum([len(window.token_ids) for window in done])[:-1]
            for window, part in zip(done, np.split(losses_SR.numpy().astype(float), ends, axis=1), strict=True):
                losses_SN[:, window.document] += part.sum(axis=1)
        return (losses_SN[1] - losses_SN[0]) / losses_SN[0]


def _timed(work: Callable[[], np.ndarray], subject: Subject) -> tuple[float, np.ndarray, float]:
    """Seconds, result, and the mean of the ceilings measured just before and just after, FLOP/s."""
    before = measured_peak(subject.device, subject.model.dtype)
    started = time.perf_counter()
    result = work()  # ends with numbers on the host: the device is done
    seconds = time.perf_counter() - started
    return seconds, result, (before + measured_peak(subject.device, subject.model.dtype)) / 2


def _range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
