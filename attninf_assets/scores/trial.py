"""A trial of a new selector: some of the corpus's documents scored, so that the first preview knows rates."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from attninf_assets.influence.document_score import Text
from attninf_assets.influence.model.head import BASE
from attninf_assets.store.json_records import read_record, sealed
from attninf_assets.store.root import Root

if TYPE_CHECKING:
    from attninf_assets.influence.engine import Engine
    from attninf_assets.influence.selector import Selector

__all__ = ["Trial", "read_trial", "try_selector"]

_SECONDS = 8.0  # that scoring takes about
_BUDGETS = 8  # packs' worth of tokens at most
_CHARACTERS = 4_000  # of a document that is scored
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """The rates that a trial by one selector found, on one device and by one version of torch; kept under the root."""

    selector_fingerprint: str
    device: str
    torch: str
    documents: int  # scored
    tokens: int
    seconds: float  # loading the model and the start left out
    bytes_per_token: dict[str, float]  # by domain

    @property
    def tokens_per_second(self) -> float:
        """Of one device."""
        return self.tokens / self.seconds

    @property
    def told_documents(self) -> str:
        """How many, in words."""
        return "1 document" if self.documents == 1 else f"{self.documents:,} documents"

    def holds_for(self, *, device: str, torch_version: str, domains: Set[str]) -> bool:
        """Whether it was made there, by this version of torch, with texts of all of these domains."""
        return (self.device, self.torch) == (device, torch_version) and domains <= self.bytes_per_token.keys()

    def publish(self, root: Root) -> None:
        """Store the trial under the root, in place of an earlier one by the same selector."""
        root.write_bytes(_path(self.selector_fingerprint), sealed(json.dumps(asdict(self), indent=1)))

    def __str__(self) -> str:
        by_domain = ", ".join(f"{domain} {rate:.2f}" for domain, rate in self.bytes_per_token.items())
        return (
            f"{self.told_documents} of {self.tokens:,} tokens scored in {self.seconds:.1f} s, "
            f"{self.tokens_per_second:,.0f} tokens/s; bytes per token: {by_domain}"
        )


def read_trial(root: Root, selector_fingerprint: str) -> Trial | None:
    """The trial of a selector; None where there was none, or what was stored is damaged, which is logged."""
    try:
        return read_record(root, _path(selector_fingerprint), Trial, made_by="retrieval_heads")
    except FileNotFoundError:
        return None
    except ValueError as error:
        _LOG.warning("%s", error)
        return None


def try_selector(
    engine: "Engine", selector: "Selector", texts: Mapping[str, Sequence[str]], *, device: str, torch_version: str
) -> Trial | None:
    """The rates on these texts, by domain; None where there are no tokens in them.

    All are tokenized. Of each in turn the beginning is scored, for about `_SECONDS` seconds at the rate at which heads
    were detected and at most `_BUDGETS` times the engine's token budget; at least one is. The first chunk, with which
    the device gets going, is left out of the measurement where as much comes after it.
    """
    bytes_per_token: dict[str, float] = {}
    for domain, of_domain in texts.items():
        n_tokens = sum(map(len, engine.tokenizer.encode_batch(list(of_domain))))
        if n_tokens:
            bytes_per_token[domain] = sum(len(text.encode()) for text in of_domain) / n_tokens
    in_turn = [text[:_CHARACTERS] for text in chain.from_iterable(zip_longest(*texts.values())) if text]
    started = time.monotonic()
    chunks: list[tuple[int, int, float]] = []  # documents, tokens and the time when they were done
    for chunk in engine.score(selector, _bounded(in_turn, engine, selector, bytes_per_token), n_bytes=0):
        chunks.append((len(chunk), sum(score.n_tokens for score in chunk), time.monotonic()))
        if chunks[-1][2] - started > _SECONDS:
            break
    if chunks and 2 * chunks[0][1] <= sum(tokens for _, tokens, _ in chunks):
        started, chunks = chunks[0][2], chunks[1:]
    documents, tokens = sum(chunk[0] for chunk in chunks), sum(chunk[1] for chunk in chunks)
    if not tokens:
        return None
    seconds = max(chunks[-1][2] - started, 1e-9)
    return Trial(selector.fingerprint, device, torch_version, documents, tokens, seconds, bytes_per_token)


def _bounded(
    texts: Sequence[str], engine: "Engine", selector: "Selector", bytes_per_token: Mapping[str, float]
) -> Iterator[Text]:
    left = float(_BUDGETS * engine.token_budget.tokens)
    if (rate := engine.detection_rate.read()) is not None:
        length = min(1024, engine.max_tokens)
        flops = engine.model.flops.of([length], [BASE, selector.head_set], n_predicted=length) / length
        left = min(left, _SECONDS * rate / flops)
    bytes_of_token = min(bytes_per_token.values(), default=1.0)
    for number, text in enumerate(texts):
        if number and left <= 0:
            return
        left -= len(text.encode()) / bytes_of_token
        yield Text(str(number), text)


def _path(selector_fingerprint: str) -> str:
    return f"selectors/trials/{selector_fingerprint}.json"
