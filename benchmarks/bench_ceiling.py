"""The matrix-product ceiling of a device by type, and what results in float32 cost at the sizes of a model.

python -m benchmarks.bench_ceiling --device cuda

The ceiling is a large square product. The others are feed-forward products of a 1.7B shape, from operands in bfloat16,
once with results in bfloat16 and once in float32, as the engine has them. Needs only torch.
"""

import argparse
from functools import partial

import torch

from attninf_assets.influence.acceleration.peak import measured_peak
from attninf_assets.influence.model.sixteen_bit import linear_product
from attninf_assets.influence.runtime.devices import choose_device
from benchmarks.clock import rate

_TOKENS = {"cpu": 256, "mps": 1024, "cuda": 32_768}


def main() -> None:
    """Print the ceilings, and the rates of products with results in 16 and in 32 bits."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", default=str(choose_device()))
    device = torch.device(arguments.parse_args().device)
    peaks = {dtype: measured_peak(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(", ".join(f"square, {dtype}: {peak / 1e12:,.2f} TFLOP/s" for dtype, peak in peaks.items()))
    said = []
    for inputs, outputs in [(2048, 8192), (8192, 2048)]:
        x = torch.randn(_TOKENS[device.type], inputs, device=device, dtype=torch.bfloat16)
        weight = torch.randn(outputs, inputs, device=device, dtype=torch.bfloat16)
        flops = 2.0 * x.numel() * outputs
        rates = [
            rate(multiply, flops, device)
            for multiply in (partial(torch.nn.functional.linear, x, weight), partial(linear_product, x, weight, None))
        ]
        said.append(f"{inputs} to {outputs}: {rates[0] / 1e12:,.2f} in 16, {rates[1] / 1e12:,.2f} in 32 bits")
    print(f"bfloat16 ceiling {peaks[torch.bfloat16] / 1e12:,.2f} TFLOP/s; results of products " + ", ".join(said))


if __name__ == "__main__":
    main()
