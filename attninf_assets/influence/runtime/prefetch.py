"""Prefetching: a thread makes the next items while this one is in use."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def prefetched(items: Iterable[T], *, depth: int = 2, on_wait: Callable[[float], None] = lambda _: None) -> Iterator[T]:
    """The same items in the same order, made up to `depth` ahead in a thread of their own.

    An error raised while making an item is raised here, after the items before it. Leaving early stops the thread.
    `on_wait` is told the seconds that each item was waited for.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(maxsize=depth)
    left = threading.Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> bool:
        while not left.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None, False)):
                    return
            put((None, None, True))
        except BaseException as error:
            put((None, error, True))

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            began = time.perf_counter()
            item, error, last = ready.get()
            on_wait(time.perf_counter() - began)
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]
    finally:
        left.set()
        thread.join()
