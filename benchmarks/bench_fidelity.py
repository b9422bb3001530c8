"""Each fast setting against float32 scores made one document at a time: rank agreement, and what selection would keep.

python -m benchmarks.bench_fidelity                          # the sample model on the sample corpus
python -m benchmarks.bench_fidelity --numeric-class float8

The reference is the naive way: two resident float32 models, full logits. It is kept beside the sample corpus, for the
settings that are tried later.
"""

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import torch

from attninf_assets.influence.engine import TOKEN_BUDGET
from attninf_assets.influence.pretrained import choose_device, load_model, load_tokenizer
from attninf_assets.influence.selector import NUMERIC_CLASSES
from benchmarks.bench_scoring import Fast, Naive
from benchmarks.fidelity import fidelity
from benchmarks.sample import sample_model_directory, sample_texts
from benchmarks.subjects import Subject, upper_heads


def main() -> None:
    """Print a line for each setting."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--numeric-class", choices=NUMERIC_CLASSES, action="append", help="default: all")
    arguments.add_argument("--device", default=str(choose_device()))
    arguments.add_argument("--documents", type=int, default=200)
    chosen = arguments.parse_args()
    device = torch.device(chosen.device)
    directory = sample_model_directory()
    texts = sample_texts()[: chosen.documents]
    documents = load_tokenizer(directory)(texts, add_special_tokens=False)["input_ids"]
    n_tokens = sum(map(len, documents))
    print(f"{n_tokens:,} tokens in {len(documents)} documents; settings on {device}, reference in float32", flush=True)
    reference = _reference(directory, documents, device)
    for numeric_class in chosen.numeric_class or NUMERIC_CLASSES:
        model = load_model(directory, numeric_class=numeric_class, device=device)
        subject = Subject(
            model,
            upper_heads(model.config),
            documents,
            device,
            TOKEN_BUDGET[device.type],
            fusing=device.type == "cuda",
            float8=numeric_class == "float8",
        )
        started = time.perf_counter()
        scores = Fast(subject).scores(documents)
        rate = n_tokens / (time.perf_counter() - started)
        print(f"{numeric_class}: {fidelity(scores, reference)}, {rate:,.0f} tokens/s", flush=True)


def _reference(directory: Path, documents: list[list[int]], device: torch.device) -> np.ndarray:
    kept = Path(".sample") / f"reference-{hashlib.sha256(repr(documents).encode()).hexdigest()[:12]}.npy"
    if not kept.exists():
        model = load_model(directory, numeric_class="float32", device=device)
        np.save(kept, Naive(model, upper_heads(model.config)).scores(documents))
    return np.load(kept)


if __name__ == "__main__":
    main()
