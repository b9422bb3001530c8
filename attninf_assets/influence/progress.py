"""Progress of long work: how much is done, how fast, how long still."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report. `total` and `done` count `unit`s; rates are over the whole work so far."""

    unit: str
    done: int
    total: int
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        return self.seconds * (self.total - self.done) / self.done if self.done else float("inf")

    def __str__(self) -> str:
        share = self.done / self.total if self.total else 1.0
        return (
            f"{self.done:,} of {self.total:,} {self.unit} ({share:.0%}), {self.tokens_per_second:,.0f} tokens/s, "
            f"{self.seconds:.0f} s so far, about {self.seconds_left:.0f} s left"
        )


OnProgress = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """For callers who do not watch."""


class ProgressClock:
    """Adds up work done and reports it, at most every `every` seconds and once at the end."""

    def __init__(self, unit: str, total: int, on_progress: OnProgress, *, every: float = 5.0) -> None:
        self._unit, self._total, self._on_progress, self._every = unit, total, on_progress, every
        self._done = self._tokens = 0
        self._started = self._reported = time.monotonic()

    def advance(self, done: int, *, tokens: int = 0) -> None:
        """Count `done` more units, worth `tokens` tokens of computation."""
        self._done += done
        self._tokens += tokens
        now = time.monotonic()
        if now - self._reported >= self._every or self._done >= self._total:
            self._reported = now
            self._on_progress(Progress(self._unit, self._done, self._total, self._tokens, now - self._started))
