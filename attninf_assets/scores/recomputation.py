"""Some stored scores computed once more, one window at a time and without what makes scoring fast, and compared."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import Shard
from attninf_assets.corpus.texts import indexed_documents
from attninf_assets.influence.document_score import DocumentScore
from attninf_assets.influence.engine import Engine
from attninf_assets.influence.model.head import BASE
from attninf_assets.influence.model.packing import cut_into_windows, pack
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.scoring import SCORE_TOLERANCE
from attninf_assets.influence.selector import Selector
from attninf_assets.store.filesystems import StorageOptions
from attninf_assets.store.tables import Lake

__all__ = ["LONGEST", "Recomputed", "recompute_sample"]

LONGEST = 16_384  # tokens of a document that is drawn
_LOSS_FACTOR = 10  # a loss may move so much further than the score: both losses of a document move together


@dataclass(frozen=True)
class Recomputed:
    """A stored score and the one that was found now."""

    doc_id: str
    n_tokens: int
    loss_base: float
    loss_reference: float
    score: float | None
    found: DocumentScore
    tolerance: float  # of the score

    @property
    def deviation(self) -> float:
        """By how much the score differs; 0 where neither is one, infinite where one of the two is."""
        if self.score is None or self.found.score is None:
            return 0.0 if self.score == self.found.score else math.inf
        return abs(self.found.score - self.score)

    @property
    def agrees(self) -> bool:
        """Whether tokens are as many, the score is the same within `tolerance`, and each loss within ten times that,
        of the loss or of 1 nat, whichever is more."""
        if self.n_tokens != self.found.n_tokens:
            return False
        pairs = ((self.loss_base, self.found.loss_base), (self.loss_reference, self.found.loss_reference))
        if not all(abs(new - old) <= _LOSS_FACTOR * self.tolerance * max(1.0, new) for old, new in pairs):
            return False
        return self.deviation <= self.tolerance

    def __str__(self) -> str:
        found = self.found
        return (
            f"{self.doc_id}: stored {self.n_tokens} tokens, losses {self.loss_base:.6g} and {self.loss_reference:.6g}, "
            f"score {self.score}; found {found.n_tokens} tokens, losses {found.loss_base:.6g} and "
            f"{found.loss_reference:.6g}, score {found.score}"
        )


def recompute_sample(
    lake: Lake,
    shard: Shard,
    selector: Selector,
    *,
    n: int,
    seed: int,
    most_tokens: float = math.inf,
    load: Callable[[], Engine],
    storage_options: StorageOptions,
) -> Iterator[Recomputed]:
    """Draw `n` documents of the shard with a score by the selector, at most `LONGEST` tokens each, and score them anew.

    If they have more than `most_tokens` together, only those drawn first that fit, but the shortest if none does.

    The same seed draws the same documents while the partition holds the same. Costs two forward passes of every window
    of a drawn document, one for each model, and reads the source up to the last of them. `load` is called only where a
    document is drawn. Raises `ValueError` where the source changed since it was indexed.
    """
    where = {"domain": shard.domain, "shard": shard.name}
    columns = ["doc_id", "text_sha256", "n_tokens", "loss_base", "loss_reference", "score"]
    by_selector = pc.field("selector_fingerprint") == selector.fingerprint
    stored = lake.read("scores", columns=columns, where=where, only=by_selector & (pc.field("n_tokens") <= LONGEST))
    drawn = _drawn(stored, n=n, seed=f"{seed}:{shard.key}", most_tokens=most_tokens)
    if not drawn:
        return
    documents = lake.read("documents", where=where)
    engine = load()
    plain = StreamedModel(engine.model.model, share_trunk=False)
    for document in indexed_documents(shard, documents, only=drawn.keys(), storage_options=storage_options):
        row = drawn[document.doc_id]
        if row.pop("text_sha256") != document.text_sha256:
            continue  # stale, which coverage tells
        found = _one_window_at_a_time(plain, engine, selector, document.doc_id, document.text)
        yield Recomputed(**row, found=found, tolerance=SCORE_TOLERANCE[selector.numeric_class])


def _drawn(stored: pa.Table, *, n: int, seed: str, most_tokens: float = math.inf) -> dict[str, dict[str, Any]]:
    """`n` rows by their doc_id, or fewer that fit. The order in which the table holds its rows decides nothing."""
    ids = sorted(stored["doc_id"].to_pylist())
    chosen = random.Random(seed).sample(ids, min(n, len(ids)))  # noqa: S311
    rows = stored.filter(pc.is_in(stored["doc_id"], value_set=pa.array(chosen, pa.string())))
    by_id = {row["doc_id"]: row for row in rows.to_pylist()}
    fitting: dict[str, dict[str, Any]] = {}
    for row in (by_id[doc_id] for doc_id in chosen):
        if row["n_tokens"] <= most_tokens:
            fitting[row["doc_id"]] = row
            most_tokens -= row["n_tokens"]
    if by_id and not fitting:
        shortest = min(by_id.values(), key=lambda row: (row["n_tokens"], row["doc_id"]))
        return {shortest["doc_id"]: shortest}
    return fitting


def _one_window_at_a_time(
    plain: StreamedModel, engine: Engine, selector: Selector, doc_id: str, text: str
) -> DocumentScore:
    ids = engine.tokenizer.encode(text)
    sums = [0.0, 0.0]
    for window in cut_into_windows(0, ids, max_tokens=selector.max_tokens):
        packed = pack([window], start_token=engine.start_token)
        for stream, heads in enumerate((BASE, selector.head_set)):
            losses_1R = plain.losses_SR(packed, [heads], mask=selector.mask)
            sums[stream] += losses_1R.double().sum().item()
    base, reference = (total / max(1, len(ids)) for total in sums)
    return DocumentScore(doc_id, len(ids), base, reference)
