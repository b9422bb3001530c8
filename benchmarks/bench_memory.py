"""Peak memory above the weights: proportional to the token budget, flat in document length and vocabulary.

python -m benchmarks.bench_memory                                # CPU, a small shape
python -m benchmarks.bench_memory --shape 1.7b --device cuda

On the CPU the tensors are followed that operations make, on CUDA it is the peak of torch's allocator.
"""

import argparse
import weakref
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from attninf_assets.influence.model.head import BASE
from attninf_assets.influence.model.mixed_precision import to_sixteen_bit
from attninf_assets.influence.model.packing import Window, pack
from attninf_assets.influence.model.pretrained import choose_numeric_class
from attninf_assets.influence.runtime.devices import choose_device
from attninf_assets.influence.verification.verified_model import verified
from benchmarks.subjects import START, random_model, upper_heads

_MIB = 2**20


def main() -> None:
    """Print peaks over budgets, then over document lengths, then over vocabularies."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shape", default="tiny")
    arguments.add_argument("--device", default=str(choose_device()))
    chosen = arguments.parse_args()
    largest = 32_768 if chosen.device.startswith("cuda") else 16_384
    usual = {"budget": largest // 4, "length": 512, "vocabulary": 8_192}
    print(f"{chosen.shape}, {chosen.device}, torch {torch.__version__}")
    print("| token budget | document length | vocabulary | peak above the weights, MiB | KiB a token of the budget |")
    print("|---|---|---|---|---|")
    varied = {
        "budget": [largest // 8, largest // 4, largest // 2, largest],
        "length": [64, 512, 4096],
        "vocabulary": [8_192, 32_768, 131_072],
    }
    cases = [usual | {name: value} for name, values in varied.items() for value in values]
    for number, case in enumerate(cases):
        if case in cases[:number]:
            continue
        peak = _peak(chosen.shape, torch.device(chosen.device), **case)
        print(
            f"| {case['budget']:,} | {case['length']:,} | {case['vocabulary']:,} | {peak / _MIB:,.0f} "
            f"| {peak / case['budget'] / 1024:.1f} |",
            flush=True,
        )


def _peak(shape: str, device: torch.device, *, token_budget: int, length: int, vocabulary: int) -> int:
    """Bytes of tensors alive at once in a pass over a full budget, beside the weights."""
    plain = random_model(shape, device, vocabulary=vocabulary)
    model = verified(
        plain if choose_numeric_class(device) == "float32" else to_sixteen_bit(plain),
        start_token=START,
        max_tokens=length,
        fusing=device.type == "cuda",
    )
    streams = [BASE, frozenset(upper_heads(model.config))]
    rng = np.random.default_rng(0)
    windows = [Window(n, rng.integers(3, vocabulary, length - 1)) for n in range(token_budget // length)]
    packed = pack(windows, start_token=START)
    model.losses_SR(pack(windows[:1], start_token=START), streams)  # what is made once
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model.losses_SR(packed, streams)
        return torch.cuda.max_memory_allocated() - before
    with _LiveBytes(model.model) as alive:
        model.losses_SR(packed, streams)
    return alive.most


class _LiveBytes(TorchDispatchMode):
    """Follows every tensor that an operation makes, until its memory is freed; views of the weights are none."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.most = 0
        weights = [t for t in [*model.parameters(), *model.buffers()] if not t.is_mkldnn]  # those have no storage
        self._known = {t.untyped_storage()._cdata for t in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        pytree.tree_map_only(torch.Tensor, self._follow, out)
        return out

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._known:
            return
        self._known.add(address)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, address, storage.nbytes())

    def _forget(self, address: int, n_bytes: int) -> None:
        self._known.discard(address)
        self.now -= n_bytes


if __name__ == "__main__":
    main()
