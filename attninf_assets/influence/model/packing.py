"""Windows of documents, and packs: rows in which windows stand back to back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True)
class Window:
    """Consecutive tokens of one document, start token not included."""

    document: int  # the caller's number for the document
    token_ids: Sequence[int] | npt.NDArray[np.int64]
    number: int = 0  # which of the document's windows it is

    @property
    def n_tokens(self) -> int:
        """The number of tokens that the window takes in a row, its start token included."""
        return len(self.token_ids) + 1


@dataclass(frozen=True)
class Pack:
    """A row of windows back to back, each behind its own start token, positions restarting at each."""

    windows: tuple[Window, ...]
    input_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    bounds: tuple[tuple[int, int], ...]  # [start, end) of each window in the row, start token included

    @property
    def n_tokens(self) -> int:
        """The number of tokens that are predicted: all but the start tokens."""
        return len(self.input_ids_T) - len(self.windows)

    @property
    def lengths(self) -> list[int]:
        """Length of each window in the row, start token included."""
        return [end - start for start, end in self.bounds]

    @property
    def predicting_rows_R(self) -> torch.Tensor:
        """Positions whose next token is one of the documents' own, in order."""
        last = torch.zeros(len(self.input_ids_T), dtype=torch.bool)
        last[[end - 1 for _, end in self.bounds]] = True
        return (~last).nonzero()[:, 0]

    @property
    def targets_R(self) -> torch.Tensor:
        """The tokens that the positions `predicting_rows_R` predict, int64 [R]."""
        return self.input_ids_T[self.predicting_rows_R + 1]


def cut_into_windows(
    document: int, token_ids: Sequence[int] | npt.NDArray[np.int64], *, max_tokens: int
) -> list[Window]:
    """Consecutive windows of at most `max_tokens` tokens; together they are the document, in order."""
    starts = range(0, len(token_ids), max_tokens)
    return [Window(document, token_ids[start : start + max_tokens], number) for number, start in enumerate(starts)]


def longest_first(windows: Sequence[Window]) -> list[Window]:
    """The windows in the order in which they are packed: longest first, equals keep their order."""
    return sorted(windows, key=lambda window: -window.n_tokens)


def pack(windows: Sequence[Window], *, start_token: int) -> Pack:
    """The windows packed back to back into one row."""
    start = np.array([start_token])
    ids = np.concatenate([part for window in windows for part in (start, np.asarray(window.token_ids, dtype=np.int64))])
    positions = np.concatenate([np.arange(window.n_tokens) for window in windows])
    ends = np.cumsum([window.n_tokens for window in windows]).tolist()
    bounds = tuple(zip([0, *ends[:-1]], ends, strict=True))
    return Pack(tuple(windows), torch.from_numpy(ids), torch.from_numpy(positions), bounds)
