"""A forward pass of several models at once: the base model and any number of variants with heads masked.

Variants are one row of the pass up to the first layer in which they differ, and split there (`stream_tree`). Shapes: S
streams, B rows of a layer, T tokens of the packed row, R predicted tokens, C hidden size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import torch

from attninf_assets.influence.model.attention import NAME, AttentionPass, Recorder, in_flight
from attninf_assets.influence.model.flops import ModelFlops, model_flops
from attninf_assets.influence.model.head import HeadSet, Mask
from attninf_assets.influence.model.kernels import Documents, Kernel, document_by_document, to_device
from attninf_assets.influence.model.layers import decoder_layers
from attninf_assets.influence.model.loss import LogSumExp, Tile, log_sum_exp_in_place, predicted_R, token_losses_R
from attninf_assets.influence.model.masking import head_mask_SH
from attninf_assets.influence.model.mixed_precision import product_type
from attninf_assets.influence.model.packing import Pack
from attninf_assets.influence.model.stream_tree import StreamTree, stream_tree


class StreamedModel:
    """A causal LM whose heads can be masked per stream; any architecture on transformers' attention interface.

    Raises `ValueError` naming the architecture where its heads, its decoder layers or what lies below its vocabulary
    projection cannot be found.
    """

    def __init__(
        self,
        model: Any,
        *,
        share_trunk: bool = True,
        kernel: Kernel = document_by_document,
        log_sum_exp: LogSumExp = log_sum_exp_in_place,
        tiles: Sequence[Tile] | None = None,
    ) -> None:
        self.model = model.eval()
        self.config = model.config.get_text_config()
        self.n_layers: int = self.config.num_hidden_layers
        self.n_heads: int = getattr(self.config, "num_attention_heads", 0)
        if not self.n_heads:
            raise ValueError(f"architecture {self.config.model_type!r} has no attention heads")
        if model.base_model is model:
            raise ValueError(
                f"architecture {self.config.model_type!r}: found no base model below its vocabulary projection"
            )
        self.share_trunk = share_trunk
        self.kernel = kernel
        self.log_sum_exp, self.tiles = log_sum_exp, tiles
        self._layers = decoder_layers(model)
        self._plan = lru_cache(maxsize=8)(self._new_plan)  # made anew, each would wait for the device
        model.set_attn_implementation(NAME)

    @property
    def device(self) -> torch.device:
        """The device that the model's parameters are on."""
        return self.model.device

    @property
    def product_type(self) -> torch.dtype:
        """The type that the model's matrices are multiplied in; float8 ones count as bfloat16."""
        return product_type(self.model)

    def tree(self, streams: Sequence[HeadSet]) -> StreamTree:
        """Which of the streams are one row, layer by layer, in a pass over them."""
        return stream_tree(tuple(streams), n_layers=self.n_layers, share_trunk=self.share_trunk)

    @cached_property
    def flops(self) -> ModelFlops:
        """The model's FLOPs, part by part."""
        return model_flops(self.model, list(self._layers))

    def useful_flops(self, pack: Pack, streams: Sequence[HeadSet]) -> float:
        """Useful FLOPs of computing the pack's losses under the streams."""
        return self.flops.of(pack.lengths, streams, n_predicted=pack.n_tokens, share_trunk=self.share_trunk)

    @torch.inference_mode()
    def hidden_STC(
        self,
        pack: Pack,
        streams: Sequence[HeadSet],
        *,
        mask: Mask = "uniform",
        recorder: Recorder | None = None,
        on_pass: Callable[[AttentionPass], None] | None = None,
    ) -> torch.Tensor:
        """The last hidden states of the packed row under every stream, [S, T, C]."""
        return self._of_streams(self._rows_BTC(pack, streams, mask=mask, recorder=recorder, on_pass=on_pass), streams)

    @torch.inference_mode()
    def losses_SR(
        self, pack: Pack, streams: Sequence[HeadSet], *, mask: Mask = "uniform", recorder: Recorder | None = None
    ) -> torch.Tensor:
        """The cross-entropy in nats of every token of the packed windows under every stream, float32 [S, R]."""
        rows_R, targets_R = (to_device(x, self.device) for x in (pack.predicting_rows_R, pack.targets_R))
        hidden_BTC = self._rows_BTC(pack, streams, mask=mask, recorder=recorder)
        losses_BR = torch.stack([self._token_losses_R(hidden[rows_R], targets_R) for hidden in hidden_BTC])
        return self._of_streams(losses_BR, streams)

    @torch.inference_mode()
    def answers_SR(
        self, pack: Pack, rows_R: torch.Tensor, streams: Sequence[HeadSet], *, mask: Mask = "uniform"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses [S, R] float32 and correctness [S, R] bool of the tokens that positions `rows_R` predict."""
        targets_R = to_device(pack.input_ids_T[rows_R + 1], self.device)
        hidden_BRC = self._rows_BTC(pack, streams, mask=mask)[:, to_device(rows_R, self.device)]
        losses_BR = torch.stack([self._token_losses_R(hidden, targets_R) for hidden in hidden_BRC])
        correct_BR = torch.stack([predicted_R(hidden, self.model) == targets_R for hidden in hidden_BRC])
        return self._of_streams(losses_BR, streams), self._of_streams(correct_BR, streams)

    def _token_losses_R(self, hidden_RC: torch.Tensor, targets_R: torch.Tensor) -> torch.Tensor:
        return token_losses_R(hidden_RC, targets_R, self.model, log_sum_exp=self.log_sum_exp, tiles=self.tiles)

    def _of_streams(self, rows: torch.Tensor, streams: Sequence[HeadSet]) -> torch.Tensor:
        """The streams' own of what there is for every row behind the last layer, in the order of the streams."""
        row_of_stream = self._plan(tuple(streams)).row_of_stream
        return rows if row_of_stream is None else rows.index_select(0, row_of_stream)

    def _rows_BTC(
        self,
        pack: Pack,
        streams: Sequence[HeadSet],
        *,
        mask: Mask,
        recorder: Recorder | None = None,
        on_pass: Callable[[AttentionPass], None] | None = None,
    ) -> torch.Tensor:
        """The last hidden states of every row behind the last layer, [B, T, C]: one for all streams that are alike."""
        plan = self._plan(tuple(streams))
        ids_BT = to_device(pack.input_ids_T, self.device)[None].expand(plan.n_entering, -1)
        attention_pass = AttentionPass(
            Documents.on(self.device, pack.bounds),
            plan.head_masks,
            mask,
            self.kernel,
            recorder,
            rounding=self.product_type != torch.float32,
        )
        with in_flight(attention_pass), self._splitting(plan.splits):
            out = self.model.base_model(
                input_ids=ids_BT, position_ids=to_device(pack.position_ids_T, self.device)[None], use_cache=False
            )
        if on_pass is not None:
            on_pass(attention_pass)
        return out.last_hidden_state

    def _index(self, rows: Sequence[int]) -> torch.Tensor:
        return to_device(torch.tensor(rows), self.device)

    def _new_plan(self, streams: tuple[HeadSet, ...]) -> "_Plan":
        tree = self.tree(streams)
        masks = {
            layer: head_mask_SH(
                [streams[first] for first in tree.stream_of_row(layer)],
                layer=layer,
                n_heads=self.n_heads,
                device=self.device,
            )
            for layer in range(self.n_layers)
        }
        return _Plan(
            n_entering=1 if self.share_trunk else tree.n_rows[0],
            head_masks={layer: mask_BH for layer, mask_BH in masks.items() if mask_BH is not None},
            splits={layer: self._index(rows) for layer, rows in tree.splits.items()} if self.share_trunk else {},
            row_of_stream=None if tree.row_of_stream == tuple(range(len(streams))) else self._index(tree.row_of_stream),
        )

    @contextmanager
    def _splitting(self, splits: Mapping[int, torch.Tensor]) -> Iterator[None]:
        """While open, the rows of the hidden states that enter a layer of `splits` are those it names, in its order."""
        with ExitStack() as hooks:
            for layer, rows_B in splits.items():
                hook = partial(_split, rows_B=rows_B)
                hooks.enter_context(self._layers[layer].register_forward_pre_hook(hook, with_kwargs=True))
            yield


@dataclass(frozen=True)
class _Plan:
    """What a pass over some streams needs, on the device."""

    n_entering: int  # rows that the token ids are repeated to
    head_masks: Mapping[int, torch.Tensor]  # layer -> bool [B, H]
    splits: Mapping[int, torch.Tensor]  # layer -> int64 [B]: the rows of the layer below that its rows come from
    row_of_stream: torch.Tensor | None  # int64 [S]; None where every stream is a row of its own


def _split(
    _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, rows_B: torch.Tensor
) -> tuple[Any, Any]:
    """The hidden states on their way into a layer, its rows taken from those of the layer below; one row is no copy."""

    def split(hidden: torch.Tensor) -> torch.Tensor:
        return hidden.expand(len(rows_B), -1, -1) if len(hidden) == 1 else hidden.index_select(0, rows_B)

    if "hidden_states" in kwargs:
        return args, {**kwargs, "hidden_states": split(kwargs["hidden_states"])}
    return (split(args[0]), *args[1:]), kwargs
