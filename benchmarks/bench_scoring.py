"""Scoring against the naive way, and against the matrix-product ceiling of this very machine, in one run.

python -m benchmarks.bench_scoring                                  # CPU, sample model, sample corpus
python -m benchmarks.bench_scoring --model DIR --documents 400      # a Hugging Face directory (Llama architecture)
python -m benchmarks.bench_scoring --shape 1.7b --device cuda       # random weights, real length distribution

Needs only torch, transformers and numpy where a --shape is given. The naive way is what one would write first: two
resident models, one document at a time, full logits. The ways take turns over a few documents at a time, and the
ceiling is measured between the turns.
"""

import argparse
import copy
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from attninf_assets.influence.model.head import BASE
from attninf_assets.influence.model.packing import Window, longest_first, pack
from attninf_assets.influence.runtime.allocator import keep_freed_memory, set_thresholds
from attninf_assets.influence.runtime.host_copy import Arriving, one_behind
from attninf_assets.influence.runtime.token_budget import TokenBudget, in_budget
from benchmarks.clock import ceiling, timed
from benchmarks.fidelity import fidelity
from benchmarks.subjects import Subject, add_arguments, chosen_subject, windows_of

_GROUP = 8  # documents that the ways take turns over


def main() -> None:
    """Print the table of measurements."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(arguments, documents=24)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--group", type=int, help="documents at a turn; default: 8, on CUDA all")
    chosen = arguments.parse_args()
    subject = chosen_subject(chosen)
    naive, fast = Naive(subject), Fast(subject)
    print(f"{subject}, kernel {fast.model.kernel.__name__}, trunk shared: {fast.model.share_trunk}", flush=True)
    size = chosen.group or (len(subject.documents) if subject.device.type == "cuda" else _GROUP)
    groups = [subject.documents[n : n + size] for n in range(0, len(subject.documents), size)]
    naive.scores(groups[-1][:2])
    fast.scores(groups[-1][:2])
    print(
        "| ceiling, GFLOP/s | naive, tokens/s | fast, tokens/s | fast / naive | useful GFLOP a token | of the ceiling "
        "| fast / naive by wall clock |"
    )
    print("|---|---|---|---|---|---|---|")
    for _ in range(chosen.rounds):
        turns = [_turn(naive, fast, group, subject) for group in groups]
        naive_scores, fast_scores = (np.concatenate(scores) for scores in zip(*(t.scores for t in turns), strict=True))
        seconds = {
            name: sum(getattr(turn, name) for turn in turns) for name in ("naive", "fast", "wall_naive", "wall_fast")
        }
        flops, highest = sum(t.flops for t in turns), statistics.mean(t.ceiling for t in turns)
        print(
            f"| {highest / 1e9:,.0f} | {subject.n_tokens / seconds['naive']:,.0f} "
            f"| {subject.n_tokens / seconds['fast']:,.0f} | {seconds['naive'] / seconds['fast']:.2f} "
            f"| {flops / subject.n_tokens / 1e9:.3f} | {flops / seconds['fast'] / highest:.2f} "
            f"| {seconds['wall_naive'] / seconds['wall_fast']:.2f} |",
            flush=True,
        )
    print(fidelity(fast_scores, naive_scores))


@dataclass(frozen=True)
class _Turn:
    """Both ways over the same documents, one right after the other, in seconds of the device and on the wall."""

    naive: float
    fast: float
    wall_naive: float
    wall_fast: float
    ceiling: float  # FLOP/s, the mean of before, between and after
    flops: float
    scores: tuple[np.ndarray, np.ndarray]


def _turn(naive: "Naive", fast: "Fast", documents: Sequence[Sequence[int]], subject: Subject) -> _Turn:
    ceilings = [ceiling(subject.device, subject.product_type)]
    set_thresholds(mmap=128 * 1024, trim=128 * 1024)  # glibc's defaults: the naive way leaves them alone
    slow = timed(partial(naive.scores, documents), subject.device)
    ceilings.append(ceiling(subject.device, subject.product_type))
    keep_freed_memory()
    quick = timed(partial(fast.scores, documents), subject.device)
    ceilings.append(ceiling(subject.device, subject.product_type))
    return _Turn(
        naive=slow.seconds,
        fast=quick.seconds,
        wall_naive=slow.wall,
        wall_fast=quick.wall,
        ceiling=statistics.mean(ceilings),
        flops=fast.flops,
        scores=(slow.result, quick.result),
    )


class Naive:
    """Two models, one document at a time, full logits; in the 16-bit classes bfloat16 throughout."""

    def __init__(self, subject: Subject) -> None:
        self.start_token = subject.start_token
        self.base = copy.deepcopy(subject.model).to(subject.product_type)
        self.base.set_attn_implementation("sdpa")
        self.reference = copy.deepcopy(self.base)
        size = self.base.config.head_dim
        for head in subject.heads:  # zero queries attend uniformly
            rows = slice(head.index * size, (head.index + 1) * size)
            self.reference.model.layers[head.layer].self_attn.q_proj.weight.data[rows] = 0

    @torch.inference_mode()
    def scores(self, documents: Sequence[Sequence[int]]) -> np.ndarray:
        found = []
        for document in documents:
            losses = np.zeros(2)
            for window in windows_of(document):
                ids = torch.tensor([[self.start_token, *window]], device=self.base.device)
                for stream, model in enumerate((self.base, self.reference)):
                    logits = model(ids, use_cache=False).logits[0, :-1].float()
                    losses[stream] += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            found.append((losses[1] - losses[0]) / losses[0])
        return np.array(found)


class Fast:
    """The engine: packed, trunk shared, losses from tiles of the vocabulary."""

    def __init__(self, subject: Subject) -> None:
        self.start_token = subject.start_token
        self.model = subject.ready()
        self.streams = [BASE, frozenset(subject.heads)]
        self.token_budget = TokenBudget(subject.token_budget)
        self.flops = 0.0  # useful ones of the latest pass over the documents

    def scores(self, documents: Sequence[Sequence[int]]) -> np.ndarray:
        losses_SN = np.zeros((2, len(documents)))
        self.flops = 0.0
        windows = [Window(number, np.array(w)) for number, d in enumerate(documents) for w in windows_of(d)]

        def losses(windows: list[Window]) -> tuple[list[Window], Arriving]:
            packed = pack(windows, start_token=self.start_token)
            self.flops += self.model.useful_flops(packed, self.streams)
            return windows, Arriving(self.model.losses_SR(packed, self.streams))

        passes = in_budget(
            longest_first(windows),
            losses,
            size=lambda window: window.n_tokens,
            token_budget=self.token_budget,
            device=self.model.device,
            on_halved=print,
        )
        for done, losses_SR in one_behind(passes):
            ends = np.cumsum([len(window.token_ids) for window in done])[:-1]
            for window, part in zip(done, np.split(losses_SR.numpy().astype(float), ends, axis=1), strict=True):
                losses_SN[:, window.document] += part.sum(axis=1)
        return (losses_SN[1] - losses_SN[0]) / losses_SN[0]


if __name__ == "__main__":
    main()
