"""One forward pass, several models: the base model and any number of variants with heads masked.

Below the first masked layer all variants are identical, so that trunk is computed once and the row is repeated from
there on. Shapes: S streams, T tokens of the packed row, R predicted tokens, C hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from attninf_assets.influence.attention import NAME, AttentionPass, Recorder, in_flight
from attninf_assets.influence.loss import predicted_R, token_losses_R
from attninf_assets.influence.masking import HeadSet, Mask, first_masked_layer, head_mask_SH
from attninf_assets.influence.packing import Pack


class StreamedModel:
    """A causal LM whose heads can be masked per stream; any architecture on transformers' attention interface.

    Raises `ValueError` naming the architecture where its heads, its decoder layers or what lies below its vocabulary
    projection cannot be found.
    """

    def __init__(self, model: Any, *, share_trunk: bool = True) -> None:
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
        self._layers = _decoder_layers(model, self.n_layers)
        model.set_attn_implementation(NAME)

    @property
    def device(self) -> torch.device:
        return self.model.device

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
        """Last hidden states of the packed row under every stream."""
        masks = {
            layer: mask_SH
            for layer in sorted({head.layer for heads in streams for head in heads})
            if (mask_SH := self._head_mask(list(streams), layer)) is not None
        }
        ids_ST = pack.input_ids_T.to(self.device)[None]
        split_at = first_masked_layer(streams) if self.share_trunk else None
        if split_at is None:
            ids_ST = ids_ST.expand(len(streams), -1)
        attention_pass = AttentionPass(pack.bounds, masks, mask, recorder)
        with in_flight(attention_pass), self._repeat_before(split_at, len(streams)):
            out = self.model.base_model(
                input_ids=ids_ST, position_ids=pack.position_ids_T.to(self.device)[None], use_cache=False
            )
        if on_pass is not None:
            on_pass(attention_pass)
        return out.last_hidden_state

    @torch.inference_mode()
    def losses_SR(self, pack: Pack, streams: Sequence[HeadSet], *, mask: Mask = "uniform") -> torch.Tensor:
        """Cross-entropy in nats of every token of the packed windows under every stream, float32."""
        rows_R, targets_R = pack.predicting_rows_R.to(self.device), pack.targets_R.to(self.device)
        hidden_STC = self.hidden_STC(pack, streams, mask=mask)
        return torch.stack([token_losses_R(hidden[rows_R], targets_R, self.model) for hidden in hidden_STC])

    @torch.inference_mode()
    def answers_SR(
        self, pack: Pack, rows_R: torch.Tensor, streams: Sequence[HeadSet], *, mask: Mask = "uniform"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(losses [S, R] float32, correct [S, R] bool) of the tokens that the given positions of the row predict."""
        rows_R = rows_R.to(self.device)
        targets_R = pack.input_ids_T.to(self.device)[rows_R + 1]
        hidden_SRC = self.hidden_STC(pack, streams, mask=mask)[:, rows_R]
        losses = torch.stack([token_losses_R(hidden, targets_R, self.model) for hidden in hidden_SRC])
        correct = torch.stack([predicted_R(hidden, self.model) == targets_R for hidden in hidden_SRC])
        return losses, correct

    def _head_mask(self, streams: list[HeadSet], layer: int) -> torch.Tensor | None:
        return head_mask_SH(streams, layer=layer, n_heads=self.n_heads, device=self.device)

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


def _decoder_layers(model: Any, n_layers: int) -> torch.nn.ModuleList:
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers:
            return module
    raise ValueError(f"architecture {model.config.model_type!r}: found no list of its {n_layers} decoder layers")
