"""Documents into windows, windows into packs of at most so many tokens."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Window:
    """Consecutive tokens of one document, start token not included."""

    document: int  # the caller's number for the document
    token_ids: Sequence[int]


@dataclass(frozen=True)
class Pack:
    """Windows back to back in one row, each behind its own start token, positions restarting at each."""

    windows: tuple[Window, ...]
    input_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    bounds: tuple[tuple[int, int], ...]  # [start, end) of each window in the row, start token included

    @property
    def n_tokens(self) -> int:
        """Tokens predicted: all but the start tokens."""
        return len(self.input_ids_T) - len(self.windows)

    @property
    def predicting_rows_R(self) -> torch.Tensor:
        """Positions whose next token is one of the documents' own, in order."""
        return torch.cat([torch.arange(start, end - 1) for start, end in self.bounds])

    @property
    def targets_R(self) -> torch.Tensor:
        """The token each of those positions predicts."""
        return self.input_ids_T[self.predicting_rows_R + 1]


def cut_into_windows(document: int, token_ids: Sequence[int], *, max_tokens: int) -> list[Window]:
    """Consecutive windows of at most `max_tokens` tokens; together they are the document, in order."""
    starts = range(0, len(token_ids), max_tokens)
    return [Window(document, token_ids[start : start + max_tokens]) for start in starts]


def pack_windows(windows: Iterable[Window], *, token_budget: int, start_token: int) -> Iterator[Pack]:
    """Packs of at most `token_budget` tokens, start tokens included, longest windows first.

    A window longer than the budget is a pack of its own: nothing is cut here.
    """
    pending: list[Window] = []
    used = 0
    for window in sorted(windows, key=lambda w: -len(w.token_ids)):
        cost = len(window.token_ids) + 1
        if pending and used + cost > token_budget:
            yield pack(pending, start_token=start_token)
            pending, used = [], 0
        pending.append(window)
        used += cost
    if pending:
        yield pack(pending, start_token=start_token)


def pack(windows: Sequence[Window], *, start_token: int) -> Pack:
    """One row of the given windows."""
    ids: list[int] = []
    positions: list[int] = []
    bounds = []
    for window in windows:
        start = len(ids)
        ids += [start_token, *window.token_ids]
        positions += range(len(window.token_ids) + 1)
        bounds.append((start, len(ids)))
    return Pack(tuple(windows), torch.tensor(ids), torch.tensor(positions), tuple(bounds))
