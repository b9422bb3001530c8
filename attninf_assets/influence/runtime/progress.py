"""Reports on long work: how much is done, how fast, how long still, and how much of the device's peak is used."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class BudgetHalved:
    """A report that the device's memory did not hold the tokens tried at once, and how many are tried now."""

    device: str
    tried: int  # tokens
    tokens: int  # of the budget from now on

    def __str__(self) -> str:
        return f"{self.device} ran out of memory at {self.tried:,} tokens at once: going on with {self.tokens:,}"


@dataclass(frozen=True)
class Progress:
    """A report on work under way. `total` and `done` count `unit`s; rates are over the whole work so far.

    Where whole documents are counted, `unit`s are only what the share is told by: documents and tokens are shown.
    """

    unit: str
    done: int
    total: int
    tokens: int
    seconds: float
    seconds_waiting: float = 0.0  # spent waiting for the next text: the device was idle no longer than that
    peak_share: float | None = None  # useful FLOP/s over the device's own matrix-product peak, measured
    documents: int | None = None  # whole ones done

    @property
    def tokens_per_second(self) -> float:
        """Tokens done per second so far; 0 before any time has passed."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds that the rest takes at the rate so far; infinite before anything is done."""
        return self.seconds * (self.total - self.done) / self.done if self.done else float("inf")

    @property
    def idle_share(self) -> float:
        """Share of the time so far that was spent waiting for the next text, 0 to 1."""
        return self.seconds_waiting / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        share = self.done / self.total if self.total else 1.0
        peak = f" ({self.peak_share:.0%} of the peak)" if self.peak_share is not None else ""
        idle = f", {self.idle_share:.0%} of them waiting for text" if self.idle_share >= 0.01 else ""
        if self.documents is None:
            done = f"{self.done:,} of {self.total:,} {self.unit}"
        elif self.done in (0, self.total):
            done = f"{self.documents:,} documents, {self.tokens:,} tokens"
        else:
            done = f"{self.documents:,} documents, {self.tokens:,} of about {self.tokens / share:,.0f} tokens"
        return (
            f"{done} ({share:.0%}), {self.tokens_per_second:,.0f} tokens/s{peak}, "
            f"{told_duration(self.seconds)} so far{idle}, about {told_duration(self.seconds_left)} left"
        )


def told_duration(seconds: float) -> str:
    """Seconds as people say them: up to two minutes in seconds, to two hours in minutes, to two days in hours."""
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 120 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"


OnProgress = Callable[[Progress | BudgetHalved], None]


def ignore_progress(_: Progress | BudgetHalved) -> None:
    """A receiver of progress reports that does nothing with them; the default."""


class ProgressClock:
    """A counter of work done that reports it, at most every `every` seconds and once at the end.

    `peak_flops`: what the device can do, FLOP/s; with it the reports say how much of that the work used.
    """

    def __init__(
        self,
        unit: str,
        total: int,
        on_progress: OnProgress,
        *,
        every: float = 5.0,
        peak_flops: float | None = None,
    ) -> None:
        self._unit, self._total, self._every, self._peak_flops = unit, total, every, peak_flops
        self.report = on_progress
        self._done = self._tokens = 0
        self._documents: int | None = None
        self._flops = self._waiting = 0.0
        self._started = self._reported = time.monotonic()

    def advance(self, done: int, *, tokens: int = 0, flops: float = 0.0, documents: int | None = None) -> None:
        """Count `done` more units, worth `tokens` tokens and `flops` useful FLOPs of computation.

        `documents`: how many were finished with them, where documents are counted."""
        if documents is not None:
            self._documents = (self._documents or 0) + documents
        self._done += done
        self._tokens += tokens
        self._flops += flops
        now = time.monotonic()
        if now - self._reported >= self._every or self._done >= self._total:
            self._reported = now
            self.report(self._progress(now - self._started))

    def waited(self, seconds: float) -> None:
        """Count seconds in which the next text was not there yet."""
        self._waiting += seconds

    def _progress(self, seconds: float) -> Progress:
        share = self._flops / (seconds * self._peak_flops) if self._peak_flops and seconds else None
        return Progress(
            self._unit, self._done, self._total, self._tokens, seconds, self._waiting, share, self._documents
        )
