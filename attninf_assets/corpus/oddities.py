"""Documents that may be what they are, and rarely are what one wants: counted while a shard is indexed."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from attninf_assets.corpus.documents import Document

__all__ = ["GIANT", "Oddities", "OddityCounter"]

GIANT = 1 << 20  # bytes of UTF-8: hundreds of windows
_SPACE, _DELETE = 32, 127  # in ASCII: C0's control characters come before the one, and the other is one
_IN_ANY_TEXT = [9, 10, 13]  # tabs and line ends
_LOOKED_AT_ONCE = 4 << 20  # bytes of text, or one text


@dataclass(frozen=True)
class Oddities:
    """How many of a shard's readable documents are odd, each in its way."""

    one_character: int  # beside whitespace
    control_characters: int  # C0 or DEL in the text, tabs and line ends aside
    exact_duplicates: int  # of a text that another document of the shard has, the first not counted
    giants: int  # longer than GIANT
    largest_bytes: int


class OddityCounter:
    """Counts odd documents as they go by; it keeps few megabytes of them at a time."""

    def __init__(self) -> None:
        self._one_character = self._control = self._giants = self._largest = 0
        self._waiting: list[bytes] = []
        self._n_waiting = 0

    def see(self, document: Document) -> None:
        """Count one document."""
        text, data = document.text, document.utf8
        self._one_character += len(text) == 1 or (len(text) < 64 and len(text.strip()) == 1)
        self._waiting.append(data)
        self._n_waiting += len(data)
        if self._n_waiting >= _LOOKED_AT_ONCE:
            self._look()
        self._giants += len(data) > GIANT
        self._largest = max(self._largest, len(data))

    def counted(self, text_sha256: pa.ChunkedArray) -> Oddities:
        """What was seen; `text_sha256` are the hashes of the same documents."""
        self._look()
        return Oddities(
            one_character=self._one_character,
            control_characters=self._control,
            exact_duplicates=len(text_sha256) - pc.count_distinct(text_sha256).as_py(),
            giants=self._giants,
            largest_bytes=self._largest,
        )

    def _look(self) -> None:
        """Count those that wait in which a byte is a control character."""
        if self._waiting:
            ends = np.fromiter(map(len, self._waiting), np.int64).cumsum()
            data = np.frombuffer(b"".join(self._waiting), np.uint8)
            found = np.flatnonzero((data < _SPACE) | (data == _DELETE))
            found = found[np.isin(data[found], _IN_ANY_TEXT, invert=True)]
            self._control += len(np.unique(np.searchsorted(ends, found, side="right")))
            self._waiting, self._n_waiting = [], 0
