"""What the engine's benchmarks run on: the sample model on real documents, or a shape with random weights."""

import argparse
import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from attninf_assets.influence.engine import TOKEN_BUDGET
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.model.mixed_precision import to_sixteen_bit
from attninf_assets.influence.model.numeric_class import NUMERIC_CLASSES, NumericClass
from attninf_assets.influence.model.pretrained import choose_numeric_class, load_model
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.model.text_tokenizer import load_tokenizer
from attninf_assets.influence.runtime.devices import choose_device
from attninf_assets.influence.verification.verified_model import verified

WINDOW = 4096
START = 1
_SHAPES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4},
    "1.7b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32},
}
_VOCABULARY = 49_152


@dataclass(frozen=True)
class Subject:
    """A plain float32 model on its device, the class to run it in, the heads to mask, and documents as token ids."""

    model: Any
    numeric_class: NumericClass
    heads: Sequence[Head]
    documents: Sequence[Sequence[int]]
    device: torch.device
    token_budget: int
    fusing: bool
    start_token: int = START

    @property
    def n_tokens(self) -> int:
        return sum(map(len, self.documents))

    @property
    def product_type(self) -> torch.dtype:
        """What the naive way computes in, and the ceiling is measured in: float32, or bfloat16."""
        return torch.float32 if self.numeric_class == "float32" else torch.bfloat16

    def ready(self, *, max_tokens: int = WINDOW) -> StreamedModel:
        """A copy of the model in its numeric class, verified, as the engine runs it."""
        model = copy.deepcopy(self.model)
        return verified(
            model if self.numeric_class == "float32" else to_sixteen_bit(model),
            start_token=self.start_token,
            max_tokens=max_tokens,
            fusing=self.fusing,
            float8=self.numeric_class == "float8",
        )

    def __str__(self) -> str:
        config = self.model.config
        return (
            f"{config.model_type}, {self.n_tokens:,} tokens in {len(self.documents)} documents, "
            f"{self.device}, {self.numeric_class}, {torch.get_num_threads()} threads, "
            f"budget {self.token_budget:,} tokens, "
            f"first masked layer {min(self.heads).layer} of {config.num_hidden_layers}"
        )


def add_arguments(arguments: argparse.ArgumentParser, *, documents: int) -> None:
    """What every benchmark of the engine may be told."""
    arguments.add_argument("--model", type=Path, help="a pinned model; default: the sample model")
    arguments.add_argument("--shape", choices=sorted(_SHAPES), help="random weights of this shape instead")
    arguments.add_argument("--device", default=str(choose_device()))
    arguments.add_argument("--documents", type=int, default=documents)
    arguments.add_argument(
        "--fuse", action=argparse.BooleanOptionalAction, help="compile norms and activations; default: on CUDA"
    )
    arguments.add_argument("--numeric-class", choices=NUMERIC_CLASSES, help="default: the device's")
    arguments.add_argument("--token-budget", type=int, help="default: the engine's for the device")


def chosen_subject(chosen: argparse.Namespace) -> Subject:
    """The model and documents asked for."""
    device = torch.device(chosen.device)
    if chosen.shape is not None:
        model, documents = random_model(chosen.shape, device), random_documents(chosen.documents)
    else:
        model, documents = _sample(chosen.model, chosen.documents, device)
    token_budget = chosen.token_budget or TOKEN_BUDGET[device.type]
    fusing = device.type == "cuda" if chosen.fuse is None else chosen.fuse
    numeric_class = chosen.numeric_class or choose_numeric_class(device)
    return Subject(model, numeric_class, upper_heads(model.config), documents, device, token_budget, fusing)


def random_model(shape: str, device: torch.device, *, vocabulary: int = _VOCABULARY) -> Any:
    """A Llama of this shape, its weights random by seed 0, in float32."""
    torch.manual_seed(0)
    config = LlamaConfig(**_SHAPES[shape], vocab_size=vocabulary, max_position_embeddings=8192)
    with torch.device(device):
        return LlamaForCausalLM(config).eval()


def random_documents(n_documents: int) -> list[list[int]]:
    """Random tokens in documents of real lengths: log-normal around a median of 600 tokens, 4,096 at most."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(math.log(600), 0.9, n_documents).astype(int) + 1, WINDOW)
    return [rng.integers(3, _VOCABULARY, n).tolist() for n in lengths]


def upper_heads(config: Any) -> list[Head]:
    """5 % of all heads, from 57 % of the depth up, where the sample model's retrieval heads begin."""
    n = math.ceil(config.num_hidden_layers * config.num_attention_heads / 20)
    first = round(0.567 * config.num_hidden_layers)
    layers = range(first, config.num_hidden_layers)
    return [Head(layers[i % len(layers)], (i * 7) % config.num_attention_heads) for i in range(n)]


def windows_of(document: Sequence[int]) -> list[Sequence[int]]:
    """Consecutive windows of at most `WINDOW` tokens."""
    return [document[start : start + WINDOW] for start in range(0, len(document), WINDOW)]


def _sample(directory: Path | None, n_documents: int, device: torch.device) -> tuple[Any, list[list[int]]]:
    from benchmarks.sample import sample_model_directory, sample_texts  # noqa: PLC0415, not needed with a --shape

    directory = directory or sample_model_directory()
    tokenized = load_tokenizer(directory).encode_batch(sample_texts()[:n_documents])
    return load_model(directory, numeric_class="float32", device=device), tokenized
