"""`make bench`: the benchmarks that finish in minutes on this machine, one after the other, each in its own process."""

import subprocess
import sys

import torch

_QUICK = [
    ["benchmarks.bench_scoring"],
    ["benchmarks.bench_thresholds", "--rows", "2000000", "--memory-limit", "2GB"],
]
_CUDA = [["benchmarks.bench_scoring", "--shape", "1.7b", "--device", "cuda", "--documents", "400"]]


def main() -> None:
    """Run them; stop at the first that fails."""
    for command in _QUICK + (_CUDA if torch.cuda.is_available() else []):
        print(f"\n$ python -m {' '.join(command)}", flush=True)
        subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
