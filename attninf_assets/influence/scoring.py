"""Attention influence scores: how much each document's loss rises when the retrieval heads are masked."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attninf_assets.influence.masking import BASE
from attninf_assets.influence.packing import cut_into_windows, pack_windows
from attninf_assets.influence.prefetch import prefetched
from attninf_assets.influence.progress import OnProgress, ProgressClock, ignore_progress
from attninf_assets.influence.selector import Selector
from attninf_assets.influence.streams import StreamedModel

NO_LOSS = 1e-4  # nats: below it a relative rise says nothing, and the score is null
_BUDGETS_PER_CHUNK = 16  # packs' worth of tokens read, sorted and scored together


@dataclass(frozen=True)
class Text:
    """A document to score: the caller's key, and its text."""

    key: str
    text: str


@dataclass(frozen=True)
class DocumentScore:
    """Losses in nats per token over the document's own tokens, and the score they make."""

    key: str
    n_tokens: int
    loss_base: float
    loss_reference: float

    @property
    def score(self) -> float | None:
        """`(loss_reference - loss_base) / loss_base`; None where there is no loss to speak of."""
        return attention_influence_score(self.loss_base, self.loss_reference)


def attention_influence_score(loss_base: float, loss_reference: float) -> float | None:
    """The score of arXiv 2505.07293: the relative rise of the loss; None if `loss_base` is below 1e-4 nats."""
    return (loss_reference - loss_base) / loss_base if loss_base >= NO_LOSS else None


def score_documents(
    model: StreamedModel,
    tokenizer: Any,
    selector: Selector,
    texts: Iterable[Text],
    *,
    start_token: int,
    token_budget: int,
    n_bytes: int,
    on_progress: OnProgress = ignore_progress,
) -> Iterator[list[DocumentScore]]:
    """Score documents chunk by chunk; a chunk is complete documents, in the order they came.

    Reading and tokenizing the next chunk overlaps with scoring this one. `n_bytes` is the size of all texts in UTF-8
    bytes and only serves progress. A document's score does not depend on the budget or on the documents beside it.
    """
    clock = ProgressClock("bytes", n_bytes, on_progress)
    chunks = tokenized_chunks(texts, tokenizer, chunk_tokens=token_budget * _BUDGETS_PER_CHUNK)
    for chunk in prefetched(chunks):
        yield _score_chunk(model, selector, chunk, start_token=start_token, token_budget=token_budget, clock=clock)


@dataclass(frozen=True)
class TokenizedText:
    """A document as the selector's tokens, no special token among them."""

    key: str
    token_ids: Sequence[int]
    n_bytes: int


def tokenized_chunks(texts: Iterable[Text], tokenizer: Any, *, chunk_tokens: int) -> Iterator[list[TokenizedText]]:
    """Documents tokenized, grouped in order into chunks that hold `chunk_tokens` tokens or a little more."""
    chunk: list[TokenizedText] = []
    held = 0
    for batch in _batches(texts, max_bytes=4 * chunk_tokens):
        encoded = tokenizer([t.text for t in batch], add_special_tokens=False, verbose=False)["input_ids"]
        for text, ids in zip(batch, encoded, strict=True):
            chunk.append(TokenizedText(text.key, ids, len(text.text.encode())))
            held += len(ids)
            if held >= chunk_tokens:
                yield chunk
                chunk, held = [], 0
    if chunk:
        yield chunk


def _batches(texts: Iterable[Text], *, max_bytes: int) -> Iterator[list[Text]]:
    batch: list[Text] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text.text)
        if held >= max_bytes or len(batch) >= 1000:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _score_chunk(
    model: StreamedModel,
    selector: Selector,
    chunk: Sequence[TokenizedText],
    *,
    start_token: int,
    token_budget: int,
    clock: ProgressClock,
) -> list[DocumentScore]:
    windows = [
        window
        for number, document in enumerate(chunk)
        for window in cut_into_windows(number, document.token_ids, max_tokens=selector.max_tokens)
    ]
    losses_SN = np.zeros((2, len(chunk)))  # sums over each document's tokens
    n_bytes, n_tokens = sum(d.n_bytes for d in chunk), sum(len(d.token_ids) for d in chunk)
    done_tokens = done_bytes = 0
    for pack in pack_windows(windows, token_budget=token_budget, start_token=start_token):
        losses_SR = model.losses_SR(pack, [BASE, selector.head_set], mask=selector.mask).cpu().double().numpy()
        row = 0
        for window in pack.windows:
            end = row + len(window.token_ids)
            losses_SN[:, window.document] += losses_SR[:, row:end].sum(axis=1)
            row = end
        done_tokens += pack.n_tokens
        done_bytes_before, done_bytes = done_bytes, n_bytes * done_tokens // n_tokens
        clock.advance(done_bytes - done_bytes_before, tokens=pack.n_tokens)
    return [
        DocumentScore(document.key, n, *(float(x) / max(1, n) for x in losses_SN[:, number]))
        for number, document in enumerate(chunk)
        for n in [len(document.token_ids)]
    ]
