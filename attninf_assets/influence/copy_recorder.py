"""Counting of the answer tokens that each head copies from context, during a forward pass.

Definition of Wu et al. (arXiv 2404.15574): the query row is the one *before* an answer token, and the attended position
points at that token itself inside the queried value's span. Shapes: P probes, S streams, H query heads, K key/value
heads, T tokens of the row, N answer tokens of one probe, L positions before the last of them, D head dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from attninf_assets.influence.model.kernels import Logits, to_device
from attninf_assets.influence.model.packing import Pack
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.probes import Probe


class CopyRecorder:
    """Counts, layer by layer during a forward pass, the answer tokens each head copies; all of it stays on the device.

    Holds (heads, answer, length) logits at most, never length × length.
    """

    def __init__(self, model: StreamedModel, probes: Sequence[Probe], packed: Pack) -> None:
        self.copied_PLH = torch.zeros(len(probes), model.n_layers, model.n_heads, device=model.device)
        ids_T = to_device(packed.input_ids_T, model.device)
        self._answers = [
            AnswerInContext.of(probe, ids_T[start:end])
            for probe, (start, end) in zip(probes, packed.bounds, strict=True)
        ]
        self._starts = [start for start, _ in packed.bounds]

    def __call__(self, layer: int, query_SHTD: torch.Tensor, key_SKTD: torch.Tensor, of_layer: Logits) -> None:
        n_heads, n_key_heads = query_SHTD.shape[1], key_SKTD.shape[1]
        for number, (answer, start) in enumerate(zip(self._answers, self._starts, strict=True)):
            # Query rows [a_1 - 1, a_n - 1), keys up to the last of them; heads grouped by the key head they share.
            q = query_SHTD[0, :, start + answer.first : start + answer.end].reshape(
                n_key_heads, -1, query_SHTD.shape[-1]
            )
            k = key_SKTD[0, :, start : start + answer.end]
            logits = q.float() @ k.transpose(1, 2).float()
            self.copied_PLH[number, layer] = answer.copied_H(
                logits.reshape(n_heads, *answer.copies_NL.shape), of_layer.window
            )


@dataclass(frozen=True)
class AnswerInContext:
    """The positions that predict a probe's answer, and those that hold the tokens to be copied."""

    first: int  # the position that predicts the first answer token
    end: int  # just behind the position that predicts the last
    copies_NL: torch.Tensor  # bool: the position lies inside the queried value's span and holds this answer token
    distance_NL: torch.Tensor  # positions from the predicting one back to this one

    @classmethod
    def of(cls, probe: Probe, ids_T: torch.Tensor) -> "AnswerInContext":
        """The positions for `probe`; `ids_T` are its tokens in the row."""
        first, end = probe.answer_start - 1, probe.answer_end - 1
        positions_L = torch.arange(end, device=ids_T.device)
        in_span_L = (positions_L >= probe.span_start) & (positions_L < probe.span_end)
        copies_NL = in_span_L & (ids_T[first + 1 : end + 1, None] == ids_T[None, :end])
        return cls(first, end, copies_NL, positions_L[first:end, None] - positions_L[None])

    def copied_H(self, logits_HNL: torch.Tensor, window: int | None) -> torch.Tensor:
        """The number of answer tokens that each head copies: those that stand where it attends most, [H].

        `logits_HNL` are the attention logits; a `window` is the number of positions that attention reaches back, own
        included.
        """
        hidden_NL = self.distance_NL < 0 if window is None else (self.distance_NL < 0) | (self.distance_NL >= window)
        attended_HN1 = logits_HNL.masked_fill(hidden_NL, -torch.inf).argmax(dim=-1, keepdim=True)
        copies_HNL = self.copies_NL.expand(len(logits_HNL), -1, -1)
        return copies_HNL.gather(-1, attended_HN1).sum(dim=(1, 2))
