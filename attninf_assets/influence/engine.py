"""A selector made ready to score: model, tokenizer and settings loaded and verified."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from attninf_assets.influence.document_score import DocumentScore, Text
from attninf_assets.influence.model.numeric_class import NumericClass
from attninf_assets.influence.model.pretrained import load_model
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.model.text_tokenizer import TextTokenizer, load_tokenizer
from attninf_assets.influence.model.window import bounded_window
from attninf_assets.influence.runtime.allocator import keep_freed_memory
from attninf_assets.influence.runtime.devices import device_name
from attninf_assets.influence.runtime.progress import OnProgress, ignore_progress
from attninf_assets.influence.runtime.remembered_rate import NOT_REMEMBERED, RememberedRate
from attninf_assets.influence.runtime.token_budget import TokenBudget
from attninf_assets.influence.scoring import score_documents
from attninf_assets.influence.selector import Selector
from attninf_assets.influence.verification.remembered import SelfCheckRecord
from attninf_assets.influence.verification.verified_model import verified

# Tokens of a packed row, measured best on two CPU cores; on CUDA enough to keep the matrix units full.
TOKEN_BUDGET = {"cpu": 1024, "mps": 4096, "cuda": 32768}


@dataclass(frozen=True)
class Engine:
    """A model ready to score: on a device, compared with its own forward pass, with its tokenizer and token budget."""

    model: StreamedModel
    tokenizer: TextTokenizer
    start_token: int
    start_token_name: str  # "bos" or "eos"
    max_tokens: int  # of a window: as asked, bounded by the model's context
    token_budget: TokenBudget
    detection_rate: RememberedRate = NOT_REMEMBERED

    def score(
        self, selector: Selector, texts: Iterable[Text], *, n_bytes: int, on_progress: OnProgress = ignore_progress
    ) -> Iterator[list[DocumentScore]]:
        """The document scores under `selector`, in chunks; see `score_documents`."""
        return score_documents(
            self.model,
            self.tokenizer,
            selector,
            texts,
            start_token=self.start_token,
            token_budget=self.token_budget,
            n_bytes=n_bytes,
            on_progress=on_progress,
        )


@lru_cache(maxsize=1)
def load_engine(
    directory: Path,
    *,
    numeric_class: NumericClass,
    max_tokens: int,
    device: torch.device,
    memory: Path | None = None,
    model_digest: str | None = None,
) -> Engine:
    """Load and verify the pinned model in `directory`; the last one loaded stays resident in the process.

    `memory` is where token budgets that had to be halved are remembered, for this device, model and window, and how
    fast heads were detected. With
    `model_digest`, that of files which were compared with it, a self-check that passed is remembered there as well, and
    not repeated (`verification/remembered.py`).

    Raises `ValueError` naming the architecture where the fast path does not agree with the model's own forward pass.
    """
    if device.type == "cpu":
        keep_freed_memory()
    tokenizer = load_tokenizer(directory)
    model = load_model(directory, numeric_class=numeric_class, device=device)
    window = bounded_window(max_tokens, model.config)
    of: dict[str, str | int] = {"device": device_name(device), "model": directory.name, "window": window}
    of["numeric_class"] = numeric_class
    record = None
    if memory is not None and model_digest is not None:
        record = SelfCheckRecord(
            memory / "self_checks", of=of | {"model": model_digest, "start_token": tokenizer.start_token}
        )
    return Engine(
        model=verified(
            model,
            start_token=tokenizer.start_token,
            max_tokens=window,
            float8=numeric_class == "float8",
            fusing=device.type == "cuda",
            record=record,
        ),
        tokenizer=tokenizer,
        start_token=tokenizer.start_token,
        start_token_name=tokenizer.start_token_name,
        max_tokens=window,
        token_budget=TokenBudget(
            TOKEN_BUDGET[device.type], memory=None if memory is None else memory / "token_budgets", of=of
        ),
        detection_rate=RememberedRate(
            None if memory is None else memory / "detection_rates",
            of={"device": of["device"], "model": model_digest or directory.name, "numeric_class": numeric_class},
        ),
    )
