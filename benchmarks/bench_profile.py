"""Where a pass of scoring spends its time: the device's kernels, by torch's profiler, over one full pack.

python -m benchmarks.bench_profile --shape 1.7b --device cuda                  # random weights
python -m benchmarks.bench_profile --shape 1.7b --device cuda --trace one.json # for a trace viewer, too

Needs only torch, transformers and numpy where a --shape is given. On the CPU it is operators, with their own time.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attninf_assets.influence.model.head import BASE
from attninf_assets.influence.model.packing import Window, longest_first, pack
from benchmarks.subjects import Subject, add_arguments, chosen_subject, windows_of

_ROWS = 12


def main() -> None:
    """Print the time between the device's first kernel and its last, how much of it is kernels, and the longest."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(arguments, documents=100)
    arguments.add_argument("--trace", type=Path, help="write the trace to this file")
    chosen = arguments.parse_args()
    subject = chosen_subject(chosen)
    model, packed = subject.ready(), one_pack(subject)
    streams = [BASE, frozenset(subject.heads)]
    on_cuda = subject.device.type == "cuda"
    for _ in range(2):  # what is made once: compiled kernels, buffers
        model.losses_SR(packed, streams).cpu()
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * on_cuda
    with torch.profiler.profile(activities=activities) as profile:
        started = time.perf_counter()
        model.losses_SR(packed, streams).cpu()
        seconds = time.perf_counter() - started
    if chosen.trace:
        profile.export_chrome_trace(str(chosen.trace))
    took = {event.key: own_seconds(event, on_cuda) for event in profile.key_averages()}
    busy = sum(took.values())
    n_tokens = len(packed.input_ids_T)
    print(f"{subject}, kernel {model.kernel.__name__}")
    print(
        f"one pack of {n_tokens:,} tokens, profiled: {seconds * 1e3:,.1f} ms, of which kernels {busy * 1e3:,.1f} ms "
        f"({busy / seconds:.0%}); useful {model.useful_flops(packed, streams) / seconds / 1e12:,.3f} TFLOP/s"
    )
    print("| ms | of the kernels | calls | kernel |")
    print("|---|---|---|---|")
    calls = {event.key: event.count for event in profile.key_averages()}
    for key, own in sorted(took.items(), key=lambda item: -item[1])[:_ROWS]:
        print(f"| {own * 1e3:,.2f} | {own / busy:.1%} | {calls[key]} | `{key[:110]}` |")


def one_pack(subject: Subject) -> Any:
    """The longest windows that fill the token budget, packed as scoring packs them."""
    windows = longest_first([Window(n, np.array(w)) for n, d in enumerate(subject.documents) for w in windows_of(d)])
    chosen: list[Window] = []
    used = 0
    for window in windows:
        if not chosen or used + window.n_tokens <= subject.token_budget:
            chosen.append(window)
            used += window.n_tokens
    return pack(chosen, start_token=subject.start_token)


def own_seconds(event: Any, on_cuda: bool) -> float:
    """Seconds of an event itself, without what it calls: on CUDA of kernels alone, on the CPU of operators."""
    if not on_cuda:
        return float(event.self_cpu_time_total) / 1e6
    is_kernel = event.device_type == torch.autograd.DeviceType.CUDA
    return float(event.self_device_time_total) / 1e6 if is_kernel else 0.0


if __name__ == "__main__":
    main()
