"""Processes for tests to start, race, interrupt and kill.

Those that run Python functions are forked from one server that has imported everything, so each begins soon. A process
has one such server for its whole life, whoever starts it first. So there is one list of what it imports.
"""

import multiprocessing as mp
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["FORKED", "attninf_process"]

FORKED = mp.get_context("forkserver")
_TORTURES = [f"attninf_assets_tests.torture.{kind}" for kind in ("killing", "races", "power_cuts", "fuzz")]
FORKED.set_forkserver_preload(
    ["attninf_assets_tests.support.forked", "attninf_assets_tests.support.crashes", *_TORTURES]
)

# What a shell starts in the background ignores SIGINT, and so does all that it starts.
_INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from attninf_assets.cli import app
app()
"""


@contextmanager
def attninf_process(*arguments: str, **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """The command `attninf`, which can be interrupted even where the tests run in a shell's background; then killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTIBLE, *arguments],
        text=True,
        **options,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
