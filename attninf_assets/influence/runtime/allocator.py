"""Settings of glibc's allocator that keep freed memory in the process.

A forward pass on the CPU makes and drops the same large buffers layer after layer. By default glibc returns each to the
operating system, and every page of the next one has to be mapped and zeroed anew: for the feed-forward block of the
sample model that is 6,000 page faults and an eighth of its time.
"""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_NEVER = 2**31 - 1
_LARGEST = 2**30


def keep_freed_memory() -> None:
    """Make this process use freed memory again rather than return it to the system; only where libc is glibc."""
    if platform.libc_ver()[0] == "glibc":
        set_thresholds(mmap=_LARGEST, trim=_NEVER)


def set_thresholds(*, mmap: int, trim: int) -> None:
    """Set glibc's two thresholds, in bytes.

    `mmap`: from which size an allocation is mapped for itself. `trim`: from how much on free memory is returned.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, mmap)
    libc.mallopt(_M_TRIM_THRESHOLD, trim)
