"""A forward pass of several models at once: the base model and any number of variants with heads masked.

Below the first masked layer all variants are identical, so that trunk is computed once and the row is repeated from
there on. Shapes: S streams, T tokens of the packed row, R predicted tokens, C hidden size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import Any

import torch

from attninf_assets.influence.model.attention import NAME, AttentionPass, Recorder, in_flight
from attninf_assets.influence.model.flops import ModelFlops, model_flops
from attninf_assets.influence.model.head import HeadSet, Mask, first_masked_layer
from attninf_assets.influence.model.kernels import Documents, Kernel, document_by_document, to_device
from attninf_assets.influence.model.layers import decoder_layers
from attninf_assets.influence.model.loss import LogSumExp, Tile, log_sum_exp_in_place, predicted_R, token_losses_R
from attninf_assets.influence.model.masking import head_mask_SH
from attninf_assets.influence.model.mixed_precision import product_type
from attninf_assets.influence.model.packing import Pack


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
        self._log_sum_exp, self._tiles = log_sum_exp, tiles
        self._layers = decoder_layers(model)
        self._head_masks = lru_cache(maxsize=8)(self._new_head_masks)  # made anew, each would wait for the device
        model.set_attn_implementation(NAME)

    @property
    def device(self) -> torch.device:
        """The device that the model's parameters are on."""
        return self.model.device

    @property
    def product_type(self) -> torch.dtype:
        """The type that the model's matrices are multiplied in; float8 ones count as bfloat16."""
        return product_type(self.model)

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
        ids_ST = to_device(pack.input_ids_T, self.device)[None]
        split_at = first_masked_layer(streams) if self.share_trunk else None
        if split_at is None:
            ids_ST = ids_ST.expand(len(streams), -1)
        attention_pass = AttentionPass(
            Documents.on(self.device, pack.bounds),
            self._head_masks(tuple(streams)),
            mask,
            self.kernel,
            recorder,
            rounding=self.product_type != torch.float32,
        )
        with in_flight(attention_pass), self._repeat_before(split_at, len(streams)):
            out = self.model.base_model(
                input_ids=ids_ST, position_ids=to_device(pack.position_ids_T, self.device)[None], use_cache=False
            )
        if on_pass is not None:
            on_pass(attention_pass)
        return out.last_hidden_state

    @torch.inference_mode()
    def losses_SR(self, pack: Pack, streams: Sequence[HeadSet], *, mask: Mask = "uniform") -> torch.Tensor:
        """The cross-entropy in nats of every token of the packed windows under every stream, float32 [S, R]."""
        rows_R, targets_R = (to_device(x, self.device) for x in (pack.predicting_rows_R, pack.targets_R))
        hidden_STC = self.hidden_STC(pack, streams, mask=mask)
        return torch.stack([self._token_losses_R(hidden[rows_R], targets_R) for hidden in hidden_STC])

    @torch.inference_mode()
    def answers_SR(
        self, pack: Pack, rows_R: torch.Tensor, streams: Sequence[HeadSet], *, mask: Mask = "uniform"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses [S, R] float32 and correctness [S, R] bool of the tokens that positions `rows_R` predict."""
        targets_R = to_device(pack.input_ids_T[rows_R + 1], self.device)
        hidden_SRC = self.hidden_STC(pack, streams, mask=mask)[:, to_device(rows_R, self.device)]
        losses = torch.stack([self._token_losses_R(hidden, targets_R) for hidden in hidden_SRC])
        correct = torch.stack([predicted_R(hidden, self.model) == targets_R for hidden in hidden_SRC])
        return losses, correct

    def _token_losses_R(self, hidden_RC: torch.Tensor, targets_R: torch.Tensor) -> torch.Tensor:
        return token_losses_R(hidden_RC, targets_R, self.model, log_sum_exp=self._log_sum_exp, tiles=self._tiles)

    def _new_head_masks(self, streams: tuple[HeadSet, ...]) -> Mapping[int, torch.Tensor]:
        layers = sorted({head.layer for heads in streams for head in heads})
        masks = {
            layer: head_mask_SH(list(streams), layer=layer, n_heads=self.n_heads, device=self.device)
            for layer in layers
        }
        return {layer: mask_SH for layer, mask_SH in masks.items() if mask_SH is not None}

    @contextmanager
    def _repeat_before(self, layer: int | None, n_streams: int) -> Iterator[None]:
        """While open, the hidden states entering `layer` are repeated, one copy per stream."""
        if layer is None:
            yield
            return

        def repeat(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            if "hidden_states" in kwargs:
                return args, {**kwargs, "hidden_states": kwargs["hidden_states"].expand(n_streams, -1, -1)}
            return (args[0].expand(n_streams, -1, -1), *args[1:]), kwargs

        handle = self._layers[layer].register_forward_pre_hook(repeat, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
