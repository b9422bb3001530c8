"""The number of tokens a device computes at once, halved where memory runs out and remembered for the next run."""

import gc
import hashlib
import json
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch

from attninf_assets.influence.runtime.progress import BudgetHalved

Item = TypeVar("Item")
Result = TypeVar("Result")

# What allocators other than CUDA's say, and CUDA's libraries about their own workspaces: plain RuntimeErrors.
_OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)  # fmt: skip


_BEFORE_MORE = 8  # batches that fit before more is tried again


class TokenBudget:
    """The number of tokens computed at once, start tokens included, on one device for one model and window.

    It is halved where the device's memory runs out. If what was tried was most of it, so much does not fit: with
    `memory`, a directory, that is kept there under `of` (what the budget is for), and the next budget made for the same
    starts from it; delete the file to forget. If it was little, something else had the device's memory for a while: the
    budget grows back.
    """

    def __init__(self, tokens: int, *, memory: Path | None = None, of: Mapping[str, str | int] | None = None) -> None:
        self._of = dict(of or {})
        self._file = None if memory is None else memory / f"{_digest(self._of)}.json"
        self.tokens = self._most = min(tokens, self._remembered() or tokens)
        self._successes = 0

    def halve(self, tried: int, *, device: torch.device) -> BudgetHalved:
        """Halve the budget to half of the tokens that were tried; returns the report of it."""
        self.tokens, self._successes = max(1, tried // 2), 0
        if 2 * tried > self._most:
            self._most = self.tokens
            self._remember()
        return BudgetHalved(str(device), tried, self.tokens)

    def held(self) -> None:
        """Note that what was tried did fit; after a few times twice as much is tried, up to what the device holds."""
        self._successes += 1
        if self._successes >= _BEFORE_MORE and self.tokens < self._most:
            self.tokens, self._successes = min(self._most, 2 * self.tokens), 0

    def _remembered(self) -> int | None:
        if self._file is None or not self._file.exists():
            return None
        try:
            tokens = json.loads(self._file.read_text())["token_budget"]
            if not isinstance(tokens, int) or tokens < 1:
                raise ValueError(f"token_budget is {tokens!r}, not a number of tokens")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._file}: {error!r}; delete the file to forget the budget") from error
        return tokens

    def _remember(self) -> None:
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(f".{uuid.uuid4().hex}.tmp")
        with temporary.open("w") as stream:
            least = min(self._most, self._remembered() or self._most)
            stream.write(json.dumps(self._of | {"token_budget": least}, indent=1))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self._file)


def in_budget(
    items: Iterable[Item],
    work: Callable[[list[Item]], Result],
    *,
    size: Callable[[Item], int],
    token_budget: TokenBudget,
    device: torch.device,
    on_halved: Callable[[BudgetHalved], None],
) -> Iterator[Result]:
    """Apply `work` to batches of consecutive items whose sizes stay within the budget; an item above it is alone.

    Where the device's memory runs out, the budget is halved and the same items are tried again in smaller batches:
    every item is worked on exactly once. Raises what `work` raised where a single item does not fit.
    """
    waiting = deque(items)
    while waiting:
        batch = _take(waiting, size, token_budget.tokens)
        result, error = _attempt(work, batch)
        if error is None:
            token_budget.held()
            yield result  # type: ignore[misc]
            continue
        tried = sum(map(size, batch))
        if len(batch) == 1:
            raise torch.OutOfMemoryError(
                f"{device}: {tried:,} tokens that belong together do not fit into the device's memory beside the "
                f"model: free the device, use shorter windows or probes, or a smaller model ({error})"
            )
        waiting.extendleft(reversed(batch))
        on_halved(token_budget.halve(tried, device=device))
        _release(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that a device, or the host, could not give the memory asked for."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def _take(waiting: deque[Item], size: Callable[[Item], int], tokens: int) -> list[Item]:
    batch = [waiting.popleft()]
    used = size(batch[0])
    while waiting and used + size(waiting[0]) <= tokens:
        used += size(waiting[0])
        batch.append(waiting.popleft())
    return batch


def _attempt(work: Callable[[list[Item]], Result], batch: list[Item]) -> tuple[Result | None, str | None]:
    """The result, or the words of an out-of-memory error; its traceback, which holds on to tensors, is let go."""
    try:
        return work(batch), None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None, str(error).partition("\n")[0]


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _digest(of: Mapping[str, str | int]) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
