"""Numbered attempts, each of which follows from a seed and its number alone."""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Attempt", "Outcome", "attempts", "seeds_parser", "told"]


@dataclass(frozen=True)
class Attempt:
    """One attempt at breaking something."""

    seed: int
    number: int

    def random(self) -> random.Random:
        """What this attempt draws from: the same numbers each time."""
        return random.Random(f"{self.seed}:{self.number}")


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt."""

    attempt: Attempt
    what: str  # was met, in a few words: outcomes are counted by it
    wrong: str = ""  # what should not have happened, if something did


def seeds_parser(description: str | None, *, count: int) -> argparse.ArgumentParser:
    """The options that every kind has: how many attempts, from which seed, and which one alone."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--count", type=int, default=count, help=f"attempts, {count:,} unless said")
    parser.add_argument("--seed", type=int, default=None, help="of the attempts; drawn, and printed, unless said")
    parser.add_argument("--only", type=int, default=None, metavar="NUMBER", help="this attempt of the seed, alone")
    return parser


def attempts(arguments: argparse.Namespace) -> Iterator[Attempt]:
    """Those that were asked for, the seed printed before the first."""
    seed = random.SystemRandom().randrange(2**32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    numbers = range(arguments.count) if arguments.only is None else [arguments.only]
    return (Attempt(seed, number) for number in numbers)


def told(
    module: str, outcomes: Iterable[Outcome], *, options: Sequence[str] = (), say: Callable[[str], None] = print
) -> int:
    """Tell what goes wrong as it comes, with the command that repeats it, and the counts; returns how much did."""
    counts: Counter[str] = Counter()
    n_wrong, begin = 0, time.monotonic()
    for outcome in outcomes:
        counts[outcome.what] += 1
        if outcome.wrong:
            n_wrong += 1
            again = ["--seed", str(outcome.attempt.seed), "--only", str(outcome.attempt.number), *options]
            say(f"WRONG: {outcome.what}: {outcome.wrong}\n  again: {sys.executable} -m {module} {' '.join(again)}")
        if (n := counts.total()) % 100 == 0:
            say(f"{n:,} attempts in {time.monotonic() - begin:,.0f} s, {n_wrong:,} wrong")
    for what, n in sorted(counts.items()):
        say(f"  {n:,} x {what}")
    say(f"{counts.total():,} attempts in {time.monotonic() - begin:,.0f} s, {n_wrong:,} wrong")
    return n_wrong
