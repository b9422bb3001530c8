"""Garbage wherever something is read that others wrote: it is taken, or refused in words that help, and nothing else.

    python -m attninf_assets_tests.torture.fuzz --count 20000

An input is drawn from the attempt and fed to what reads it, in a process that serves many: a corpus file (listed, if it
is valid, and its globs stay in its folder), a source file (indexed), settings (read, and made resources), a model's
directory (pinned, loaded, run), a GGUF file (converted, loaded). The law:

- **Taken** is an input whose reader returns. Of a source file, every row then is a document or has a reason in the
  quarantine; of a model, the digest is that of what was pinned.
- **Refused** is one whose reader raises `ValueError`, or a class of it, in words that
  - begin with the place: the corpus file, the source file, `selector <source>`, or `ATTNINF_<NAME>` of a wrong setting;
  - name within it what is wrong, as far as the reader can know. Of a corpus file: for broken YAML the line, else for
    every problem the field (`domains.web.format`) and the value there. Of a setting: the value, unless it may be a
    secret. Of a model's directory: a file of the model. Of a source file that is damaged as a whole, and of a GGUF
    file, the reason. Field and value of a model are told where its sizes, its index or its weights' shapes are wrong,
    which `selector/test_untrusted_model.py` holds field by field; where a library finds the fault, its words are told;
  - show no secret of an address, nor a place that nobody asked for, such as the copy that is pinned;
  - are bounded, a line and in all, and hold no character that acts on a terminal.
- The reason of a quarantined row is a single line, bounded and escaped alike.
- **Wrong** is anything else: another exception, words that break the law, more than 10 s of the processor's time (or a
  minute's by the clock: a busy machine is not a hang), more than 2 GB of memory above what the process held before, and
  a process that dies.
"""

import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from attninf_assets_tests.torture.attempts import Attempt, Outcome, attempts, seeds_parser, told
from attninf_assets_tests.torture.hostile_corpora import feed_corpus, feed_settings
from attninf_assets_tests.torture.hostile_models import feed_gguf, feed_selector
from attninf_assets_tests.torture.hostile_shards import feed_shard
from attninf_assets_tests.torture.refusals import Met
from attninf_assets_tests.torture.workers import StuckError, Worker

__all__ = ["KINDS", "fuzzed"]

KINDS: Mapping[str, tuple[Callable[[Path, random.Random], Met], int]] = {  # and of a hundred inputs, how many
    "corpus": (feed_corpus, 38),
    "shard": (feed_shard, 38),
    "settings": (feed_settings, 17),
    "selector": (feed_selector, 5),
    "gguf": (feed_gguf, 2),
}
_MOST_MEMORY = 2 << 30  # bytes
_RUNAWAY = 6 << 30  # bytes of address space, where allocation ends; much of what is reserved is never used
_MOST_SECONDS = 10.0  # of the processor
_PATIENCE = 60.0  # seconds by the clock
_WARMING = 300.0  # seconds


def fuzzed(inputs: Iterable[tuple[Attempt, str]]) -> Iterator[Outcome]:
    """What comes of each attempt with an input of that kind."""
    worker: Worker | None = None
    try:
        for attempt, name in inputs:
            if worker is None:
                worker = Worker()
                worker.ask(_warm)
                worker.answer(seconds=_WARMING)
            worker.ask(feed, attempt, name)
            try:
                what, faults = worker.answer(seconds=_PATIENCE)
            except StuckError as error:
                what, faults = "ended its process", [str(error)]
                worker.kill()
                worker = None
            yield Outcome(attempt, f"{name}: {what}", "; ".join(faults))
    finally:
        if worker is not None:
            worker.kill()


def kind_of(attempt: Attempt) -> str:
    """Which kind of input the attempt draws."""
    draw = random.Random(f"kind {attempt.seed}:{attempt.number}")
    return draw.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]


def feed(attempt: Attempt, kind: str) -> Met:
    """Draw the input and feed it, in this process, which must bear it."""
    with tempfile.TemporaryDirectory(prefix="attninf-fuzz-") as directory:
        before, reserved = _peak(anew=True), _address_space()
        resource.setrlimit(resource.RLIMIT_AS, (reserved + _RUNAWAY, resource.RLIM_INFINITY))
        begin = time.process_time()
        try:
            what, faults = KINDS[kind][0](Path(directory), attempt.random())
        except BaseException as error:  # tokenizers are Rust, whose panics are no Exception
            what = "another error"
            faults = [
                f"{type(error).__name__}: {str(error)[:500]}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}"
            ]
        finally:
            seconds = time.process_time() - begin
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if seconds > _MOST_SECONDS:
            faults = [*faults, f"took {seconds:.1f} s"]
        if (memory := _peak() - before) > _MOST_MEMORY:
            faults = [*faults, f"took {memory:,} bytes"]
    return what, faults


def _peak(*, anew: bool = False) -> int:
    """The most memory that this process held at once, in bytes; with `anew`, counted from now on."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _warm() -> None:
    """Feed one input of every kind, so that no later one pays for what is imported and made once."""
    for kind in KINDS:
        feed(Attempt(0, 0), kind)


def main() -> None:
    """Feed the attempts' inputs, and exit with 1 if any went wrong."""
    parser = seeds_parser(__doc__, count=20_000)
    parser.add_argument("--kind", choices=list(KINDS), default=None, help="this kind alone")
    arguments = parser.parse_args()
    options = [] if arguments.kind is None else ["--kind", arguments.kind]
    outcomes = fuzzed((attempt, arguments.kind or kind_of(attempt)) for attempt in attempts(arguments))
    sys.exit(told("attninf_assets_tests.torture.fuzz", outcomes, options=options) > 0)


if __name__ == "__main__":
    main()
