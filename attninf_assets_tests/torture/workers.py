"""Processes that live as long as an experiment and do one thing after the other; a process each, all of them real."""

import os
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from attninf_assets_tests.support.processes import FORKED

__all__ = ["StuckError", "Worker"]


class StuckError(Exception):
    """A worker that did not answer in time, or died; it was ended."""


class Worker:
    """A process that is asked to call functions, and says what they return.

    What it is made with, such as a barrier, comes after the arguments of each call.
    """

    def __init__(self, *shared: Any) -> None:
        self._here, there = FORKED.Pipe()
        self.process = FORKED.Process(target=_serve, args=(there, shared), daemon=True)
        self.process.start()
        there.close()

    def ask(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have it call the function; `answer` has what came of it."""
        self._here.send((function, arguments))

    def answer(self, *, seconds: float) -> Any:
        """What the function returned. Raises `StuckError` with what is known where it did not."""
        try:
            if not self._here.poll(seconds):
                self.kill()
                raise StuckError(f"no answer in {seconds:.0f} s")
            done, value = self._here.recv()
        except (EOFError, ConnectionResetError):
            self.kill()
            raise StuckError(f"died with exit code {self.process.exitcode}") from None
        if not done:
            raise StuckError(value)
        return value

    def kill(self) -> None:
        """End the process with SIGKILL."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()


def _serve(connection: Connection, shared: tuple[Any, ...]) -> None:
    with suppress(EOFError):
        while True:
            function, arguments = connection.recv()
            try:
                answer = (True, function(*arguments, *shared))
            except Exception:
                answer = (False, traceback.format_exc())
            connection.send(answer)
