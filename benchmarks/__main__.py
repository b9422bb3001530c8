"""`make bench`: the benchmarks that finish in minutes on this machine, one after the other, each in its own process."""

import subprocess
import sys

import torch

_QUICK = [
    ["benchmarks.bench_scoring"],
    ["benchmarks.bench_detection"],
    ["benchmarks.bench_memory"],
    ["benchmarks.bench_idle"],
    ["benchmarks.bench_thresholds", "--rows", "2000000", "--memory-limit", "2GB"],
    ["benchmarks.bench_selections", "--rows", "1000000"],
]
_SHAPE = ["--shape", "1.7b", "--device", "cuda"]
_CUDA = [
    ["benchmarks.bench_scoring", *_SHAPE, "--documents", "400"],
    ["benchmarks.bench_detection", *_SHAPE, "--probes", "800", "--probe-tokens", "4096"],
    ["benchmarks.bench_memory", *_SHAPE],
    ["benchmarks.bench_idle", *_SHAPE, "--documents", "20000"],
]


def main() -> None:
    """Run them; stop at the first that fails."""
    for command in _QUICK + (_CUDA if torch.cuda.is_available() else []):
        print(f"\n$ python -m {' '.join(command)}", flush=True)
        subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
