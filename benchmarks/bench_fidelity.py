"""Each fast setting against float32 scores made one document at a time: rank agreement, and what selection would keep.

python -m benchmarks.bench_fidelity                          # the sample model
python -m benchmarks.bench_fidelity --numeric-class float8 --in-use   # the selector in use under ATTNINF_ROOT
python -m benchmarks.bench_fidelity --model DIR --heads L11H2,L5H1    # another pinned model, and its heads
python -m benchmarks.bench_fidelity --document-tokens 4096            # the texts joined to documents of that length

The documents are the sample corpus's. The reference for the sample model is the naive way, two resident models with
full logits; for another one, of whatever architecture, the engine in float32, a window at a time and with nothing
shared. It is kept beside the sample corpus, for the settings that are tried later.
"""

import argparse
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from attninf_assets.influence.engine import TOKEN_BUDGET
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.model.numeric_class import NUMERIC_CLASSES, NumericClass
from attninf_assets.influence.model.pretrained import load_model
from attninf_assets.influence.model.text_tokenizer import load_tokenizer
from attninf_assets.influence.runtime.devices import choose_device
from attninf_assets.selector.model_files import local_directory
from attninf_assets.selector.stored import current_selector
from benchmarks.bench_scoring import Fast, Naive
from benchmarks.clock import timed
from benchmarks.fidelity import fidelity
from benchmarks.sample import sample_model_directory, sample_texts
from benchmarks.subjects import Subject, upper_heads


def main() -> None:
    """Print a line for each setting."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--numeric-class", choices=NUMERIC_CLASSES, action="append", help="default: all")
    arguments.add_argument("--device", default=str(choose_device()))
    arguments.add_argument("--documents", type=int, default=200)
    arguments.add_argument("--in-use", action="store_true", help="the selector in use instead of the sample model")
    arguments.add_argument("--model", type=Path, help="a pinned model instead of the sample model")
    arguments.add_argument("--heads", type=_heads, help="default: as many as a selector has, from the upper layers")
    arguments.add_argument("--document-tokens", type=int, help="join the texts to documents of as many tokens")
    chosen = arguments.parse_args()
    device = torch.device(chosen.device)
    other = (chosen.model, None) if chosen.model else (sample_model_directory(), None)
    directory, heads = _selector_in_use() if chosen.in_use else other
    heads = chosen.heads or heads
    texts, tokenizer = sample_texts(), load_tokenizer(directory)
    documents = tokenizer.encode_batch(texts)
    if chosen.document_tokens:
        documents = _joined(documents, chosen.document_tokens)
    documents = documents[: chosen.documents]
    n_tokens = sum(map(len, documents))
    print(f"{n_tokens:,} tokens in {len(documents)} documents; settings on {device}, reference in float32", flush=True)

    def subject(numeric_class: NumericClass, *, token_budget: int, fusing: bool) -> Subject:
        model = load_model(directory, numeric_class="float32", device=device)
        masked = heads or upper_heads(model.config)
        start = tokenizer.start_token
        return Subject(model, numeric_class, masked, documents, device, token_budget, fusing, start)

    def reference() -> np.ndarray:
        plain = subject("float32", token_budget=1, fusing=False)
        return (Fast(plain) if chosen.in_use or chosen.model else Naive(plain)).scores(documents)

    expected = _kept(reference, of=[str(directory), heads, documents])
    for numeric_class in chosen.numeric_class or NUMERIC_CLASSES:
        tried = subject(numeric_class, token_budget=TOKEN_BUDGET[device.type], fusing=device.type == "cuda")
        done = timed(partial(Fast(tried).scores, documents), device)
        print(f"{numeric_class}: {fidelity(done.result, expected)}, {n_tokens / done.wall:,.0f} tokens/s", flush=True)


def _selector_in_use() -> tuple[Path, Sequence[Head]]:
    from attninf_assets.orchestration.connections.resources import LakeResource  # noqa: PLC0415, only for this
    from attninf_assets.orchestration.connections.settings import read_settings, resources_from  # noqa: PLC0415

    lake = resources_from(read_settings())["lake"]
    assert isinstance(lake, LakeResource)
    root = lake.storage_root()
    selector = current_selector(root)
    return local_directory(root, f"selectors/{selector.model_digest}", cache=lake.model_cache()), selector.heads


def _heads(text: str) -> list[Head]:
    """Heads as they are written: L11H2,L5H1."""
    return [Head(*map(int, head.removeprefix("L").split("H"))) for head in text.split(",")]


def _joined(documents: Sequence[Sequence[int]], n_tokens: int) -> list[list[int]]:
    """The documents' tokens one after the other, in documents of `n_tokens`."""
    tokens = [token for document in documents for token in document]
    return [tokens[start : start + n_tokens] for start in range(0, len(tokens) - n_tokens + 1, n_tokens)]


def _kept(make: Callable[[], np.ndarray], *, of: object) -> np.ndarray:
    kept = Path(".sample") / f"reference-{hashlib.sha256(repr(of).encode()).hexdigest()[:12]}.npy"
    if not kept.exists():
        np.save(kept, make())
    return np.load(kept)


if __name__ == "__main__":
    main()
