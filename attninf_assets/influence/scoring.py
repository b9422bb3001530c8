"""Computation of attention influence scores: how much a document's loss rises when the retrieval heads are masked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from attninf_assets.influence.acceleration.peak import peak_flops
from attninf_assets.influence.document_score import DocumentScore, Text, attention_influence_score
from attninf_assets.influence.model.head import BASE
from attninf_assets.influence.model.numeric_class import NumericClass
from attninf_assets.influence.model.packing import Window, cut_into_windows, longest_first, pack
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.model.text_tokenizer import TextTokenizer
from attninf_assets.influence.runtime.host_copy import Arriving, one_behind
from attninf_assets.influence.runtime.prefetch import prefetched
from attninf_assets.influence.runtime.progress import OnProgress, ProgressClock, ignore_progress
from attninf_assets.influence.runtime.token_budget import TokenBudget, in_budget
from attninf_assets.influence.selector import Selector

# How far a document's score may move with the batch it is computed in; in float32 also with the device and the kernel.
SCORE_TOLERANCE: Mapping[NumericClass, float] = {"float32": 1e-4, "bfloat16": 5e-3, "float8": 2e-2}
_BUDGETS_PER_CHUNK = 16  # packs' worth of tokens read, sorted and scored together


def score_documents(
    model: StreamedModel,
    tokenizer: TextTokenizer,
    selector: Selector,
    texts: Iterable[Text],
    *,
    start_token: int,
    token_budget: TokenBudget,
    n_bytes: int,
    on_progress: OnProgress = ignore_progress,
) -> Iterator[list[DocumentScore]]:
    """Score documents chunk by chunk; a chunk is complete documents, in the order they came.

    Reading and tokenizing the next chunks overlaps with scoring this one, and a pack's losses are read while the device
    is at work on the next. `n_bytes` is the size of all texts in UTF-8 bytes and only serves progress. A document's
    score does not depend on the budget or on the documents beside it, to within `SCORE_TOLERANCE`.
    """
    clock = ProgressClock("bytes", n_bytes, on_progress, peak_flops=peak_flops(model.device, model.product_type))
    chunks = prefetched(
        tokenized_chunks(texts, tokenizer, chunk_tokens=_chunk_sizes(token_budget)), on_wait=clock.waited
    )

    def passes() -> Iterator[_Pass]:
        for documents in chunks:
            chunk = _Chunk.of(documents, max_tokens=selector.max_tokens)
            yield from _passes(model, selector, chunk, start_token=start_token, token_budget=token_budget, clock=clock)

    for done in one_behind(passes()):
        done.chunk.add(done, clock)
        if done.is_last:
            yield done.chunk.scores()


@dataclass(frozen=True)
class TokenizedText:
    """A document as the selector's tokens, as `TextTokenizer` makes them of it."""

    doc_id: str
    token_ids: npt.NDArray[np.int64]
    n_bytes: int


def tokenized_chunks(
    texts: Iterable[Text], tokenizer: TextTokenizer, *, chunk_tokens: Iterable[int]
) -> Iterator[list[TokenizedText]]:
    """Documents tokenized, grouped in order into chunks that hold the tokens asked for, each a little more at most.

    `chunk_tokens`: the sizes of the chunks one after the other, without end.
    """
    sizes = iter(chunk_tokens)
    wanted = next(sizes)
    chunk: list[TokenizedText] = []
    held = 0
    for batch in _batches(texts, max_characters=4 * wanted):
        encoded = tokenizer.encode_batch([text.text for text in batch])
        for text, ids in zip(batch, encoded, strict=True):
            chunk.append(TokenizedText(text.doc_id, np.array(ids, dtype=np.int64), len(text.text.encode())))
            held += len(ids)
            if held >= wanted:
                yield chunk
                chunk, held, wanted = [], 0, next(sizes)
    if chunk:
        yield chunk


def _chunk_sizes(token_budget: TokenBudget) -> Iterator[int]:
    """Tokens of the chunks: small at first, so that the device does not wait for the first, then many packs' worth."""
    n_budgets = 1
    while True:
        yield n_budgets * token_budget.tokens
        n_budgets = min(2 * n_budgets, _BUDGETS_PER_CHUNK)


def _batches(texts: Iterable[Text], *, max_characters: int) -> Iterator[list[Text]]:
    batch: list[Text] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text.text)
        if held >= max_characters or len(batch) >= 1000:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


@dataclass
class _Chunk:
    """Documents whose losses are being added up, pass by pass."""

    documents: Sequence[TokenizedText]
    losses_SN: npt.NDArray[np.float64]  # sums over each document's tokens
    left_N: npt.NDArray[np.int64]  # tokens of each document whose losses are still to come
    windows_W: Mapping[int, list[float | None]]  # scores of the windows of each document that has several, by number
    n_bytes: int
    n_tokens: int
    done_tokens: int = 0

    @classmethod
    def of(cls, documents: Sequence[TokenizedText], *, max_tokens: int) -> "_Chunk":
        n_bytes, left_N = sum(d.n_bytes for d in documents), np.array([len(d.token_ids) for d in documents])
        n_windows = {number: -(-int(n) // max_tokens) for number, n in enumerate(left_N) if n > max_tokens}
        windows_W: dict[int, list[float | None]] = {number: [None] * n for number, n in n_windows.items()}
        return cls(documents, np.zeros((2, len(documents))), left_N, windows_W, n_bytes, int(left_N.sum()))

    def add(self, done: "_Pass", clock: ProgressClock) -> None:
        """Add the losses of a pass to its windows' documents."""
        n_left = int(np.count_nonzero(self.left_N)) if self.done_tokens else len(self.documents)
        if done.losses_SR is None:
            clock.advance(self.n_bytes, documents=n_left)
            return
        losses_SR = done.losses_SR.numpy().astype(np.float64)
        row = 0
        for window in done.windows:
            end = row + len(window.token_ids)
            losses_S = losses_SR[:, row:end].sum(axis=1)
            self.losses_SN[:, window.document] += losses_S
            if window.document in self.windows_W:
                base, reference = (float(loss) / len(window.token_ids) for loss in losses_S)
                self.windows_W[window.document][window.number] = attention_influence_score(base, reference)
            self.left_N[window.document] -= len(window.token_ids)
            row = end
        before = self.n_bytes * self.done_tokens // self.n_tokens
        self.done_tokens += row
        clock.advance(
            self.n_bytes * self.done_tokens // self.n_tokens - before,
            tokens=row,
            flops=done.flops,
            documents=n_left - int(np.count_nonzero(self.left_N)),
        )

    def scores(self) -> list[DocumentScore]:
        return [
            DocumentScore(
                document.doc_id,
                n,
                float(self.losses_SN[0, number]) / max(1, n),
                float(self.losses_SN[1, number]) / max(1, n),
                tuple(self.windows_W[number]) if number in self.windows_W else None,
            )
            for number, document in enumerate(self.documents)
            for n in [len(document.token_ids)]
        ]


@dataclass(frozen=True)
class _Pass:
    """Windows of a chunk that the device is at work on, or has been."""

    chunk: _Chunk
    windows: Sequence[Window]
    losses_SR: Arriving | None  # None where the chunk has no tokens at all
    flops: float
    is_last: bool = False  # of its chunk


def _passes(
    model: StreamedModel,
    selector: Selector,
    chunk: _Chunk,
    *,
    start_token: int,
    token_budget: TokenBudget,
    clock: ProgressClock,
) -> Iterator[_Pass]:
    windows = [
        window
        for number, document in enumerate(chunk.documents)
        for window in cut_into_windows(number, document.token_ids, max_tokens=selector.max_tokens)
    ]
    if not windows:
        yield _Pass(chunk, [], None, 0.0, is_last=True)
        return
    streams = [BASE, selector.head_set]

    def losses(windows: list[Window]) -> _Pass:
        packed = pack(windows, start_token=start_token)
        losses_SR = model.losses_SR(packed, streams, mask=selector.mask)
        return _Pass(chunk, windows, Arriving(losses_SR), model.useful_flops(packed, streams))

    n_left = len(windows)
    for done in in_budget(
        longest_first(windows),
        losses,
        size=lambda window: window.n_tokens,
        token_budget=token_budget,
        device=model.device,
        on_halved=clock.report,
    ):
        n_left -= len(done.windows)
        yield replace(done, is_last=n_left == 0)
