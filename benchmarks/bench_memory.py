"""Peak memory above the weights: proportional to the token budget, flat in document length and vocabulary.

python -m benchmarks.bench_memory                                # CPU, a small shape
python -m benchmarks.bench_memory --shape 1.7b --device cuda

Every row is a process of its own. On the CPU it is the peak of the resident set, on CUDA that of torch's allocator.
"""

import argparse
import ctypes
import multiprocessing as mp
from pathlib import Path

import numpy as np
import torch

from attninf_assets.influence.masking import BASE
from attninf_assets.influence.packing import Window, pack
from attninf_assets.influence.pretrained import choose_device
from attninf_assets.influence.streams import StreamedModel
from benchmarks.subjects import START, random_model, upper_heads

_MIB = 2**20


def main() -> None:
    """Print peaks over budgets, then over document lengths, then over vocabularies."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shape", default="tiny")
    arguments.add_argument("--device", default=str(choose_device()))
    chosen = arguments.parse_args()
    largest = 32_768 if chosen.device.startswith("cuda") else 16_384
    usual = {"budget": largest // 2, "length": 512, "vocabulary": 49_152}
    print(f"{chosen.shape}, {chosen.device}, torch {torch.__version__}")
    print("| token budget | document length | vocabulary | peak above the weights, MiB | KiB a token of the budget |")
    print("|---|---|---|---|---|")
    varied = {
        "budget": [largest // 8, largest // 4, largest // 2, largest],
        "length": [64, 512, 4096],
        "vocabulary": [8_192, 49_152, 196_608],
    }
    cases = [usual | {name: value} for name, values in varied.items() for value in values]
    for number, case in enumerate(cases):
        if case in cases[:number]:
            continue
        with mp.get_context("spawn").Pool(1) as process:
            peak = process.apply(_peak, (chosen.shape, chosen.device), case)
        print(
            f"| {case['budget']:,} | {case['length']:,} | {case['vocabulary']:,} | {peak / _MIB:,.0f} "
            f"| {peak / case['budget'] / 1024:.1f} |",
            flush=True,
        )


def _peak(shape: str, device_name: str, *, budget: int, length: int, vocabulary: int) -> int:
    """Bytes above what the process held with the model loaded, in a pass over a full budget."""
    device = torch.device(device_name)
    model = StreamedModel(random_model(shape, device, vocabulary=vocabulary))
    streams = [BASE, frozenset(upper_heads(model.config))]
    rng = np.random.default_rng(0)
    windows = [Window(n, rng.integers(3, vocabulary, length - 1)) for n in range(budget // length)]
    packed = pack(windows, start_token=START)
    model.losses_SR(pack(windows[:1], start_token=START), streams)  # what libraries keep for themselves
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _status("VmRSS")
    model.losses_SR(packed, streams)
    return (torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")) - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
