"""Comparison of the packed, masked path with the model's own forward pass.

Most architectures hand their attention to transformers' interface and the packed path is exact. One that bypasses it in
some layer, or adds something this project does not know, would give wrong scores quietly; so it is compared on load and
refused by name.
"""

import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from attninf_assets.influence.model.attention import NAME, AttentionPass, current_pass, in_flight, packed_attention
from attninf_assets.influence.model.head import BASE, Head, HeadSet
from attninf_assets.influence.model.kernels import Documents, per_query_head, visible_QK
from attninf_assets.influence.model.packing import Pack, Window, pack
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.runtime.token_budget import is_out_of_memory

TOLERANCE = 2e-3  # nats on any single token, weights in float32
ROUGH_TOLERANCE = 0.15  # nats a token on average, where 16-bit weights are all there is room for
_EXPLICIT = "attninf_explicit"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """A comparison to put a model through: documents, the losses expected, and how far found ones may differ."""

    packed: Pack
    streams: Sequence[HeadSet]  # the base model, and masked ones that split from it and from each other
    expected_SR: torch.Tensor
    tolerance: float  # nats
    on_average: bool  # over the tokens, or else on any single one
    architecture: str

    def require(self, candidate: StreamedModel, what: tuple[str, str]) -> None:
        """Raise `ValueError` naming the architecture and `what` (base, masked) differs."""
        found_SR = candidate.losses_SR(self.packed, self.streams)
        for found_R, expected_R, heads in zip(found_SR, self.expected_SR, self.streams, strict=True):
            name = what[bool(heads)]
            # max(0, nan) is 0: finiteness has to be asked for.
            if not (torch.isfinite(found_R).all() and torch.isfinite(expected_R).all()):
                raise ValueError(f"architecture {self.architecture!r}: {name}: losses are not finite")
            apart_R = (found_R - expected_R).abs()
            difference = (apart_R.mean() if self.on_average else apart_R.max()).item()
            if difference > self.tolerance:
                raise ValueError(
                    f"architecture {self.architecture!r}: {name}: "
                    f"{'tokens on average differ' if self.on_average else 'a token differs'} by {difference:.2g} nats, "
                    f"more than {self.tolerance:g}; this is not supported"
                )

    def passes(self, candidate: StreamedModel, what: str) -> bool:
        """Whether the candidate runs for the model's shapes on this device, and agrees; says why where it does not."""
        try:
            self.require(candidate, (what, f"{what}, masked"))
        except (RuntimeError, TypeError, ValueError, ImportError, OSError) as error:  # a compiler may be missing
            if is_out_of_memory(error):
                raise
            _LOG.warning("%s is not used: %s", what, error)
            return False
        return True


def check_architecture(model: Any, packed: Pack, *, exact: bool) -> tuple[Check, bool]:
    """Compare the packed, masked path with the model's own forward pass.

    Returns the check that the model has passed, and whether its trunk can be shared. Raises `ValueError` naming the
    architecture where losses differ."""
    name = model.config.model_type
    rows = [packed.input_ids_T[None, start:end].to(model.device) for start, end in packed.bounds]
    try:
        model.set_attn_implementation("eager")
        own_R = torch.cat([_own_losses(model, ids) for ids in rows])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"architecture {name!r}: its eager attention cannot be run to compare with: {error}"
        ) from error
    plain = StreamedModel(model, share_trunk=False)
    _require_every_layer(plain, packed)
    # Two masked streams: one row up to the last layer, so that a pass over all three splits twice.
    middle, last = Head(plain.n_layers // 2, 0), Head(plain.n_layers - 1, plain.n_heads - 1)
    masked = [frozenset({middle, last}), frozenset({middle})]
    explicit = [torch.cat([_explicit_losses(model, ids, plain, heads) for ids in rows]) for heads in masked]
    check = Check(
        packed,
        [BASE, *masked],
        torch.stack([own_R, *explicit]),
        TOLERANCE if exact else ROUGH_TOLERANCE,
        on_average=not exact,
        architecture=name,
    )
    against = ("packed losses against its own eager attention", "masked losses against explicit uniform attention")
    check.require(plain, against)
    # What a layer keeps from below a split may not broadcast over the rows above it.
    return check, check.passes(StreamedModel(model), "sharing the trunk")


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """A block in which the model's parameters are float32; they are given back unchanged.

    Buffers stay as they are: some are float32 in a 16-bit model.
    """
    before = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        for parameter, data in before:
            parameter.data = data.float()
        yield
    finally:
        for parameter, data in before:
            parameter.data = data


def check_documents(model: Any, start_token: int, max_tokens: int) -> Pack:
    """Two packed documents of seeded random tokens, one of them longer than any sliding window that applies."""
    config = model.config.get_text_config()
    rng = random.Random(0)  # noqa: S311
    lengths = (_length_beyond_windows(config, max_tokens), 9)
    texts = [[rng.randrange(config.vocab_size) for _ in range(n)] for n in lengths]
    return pack([Window(i, ids) for i, ids in enumerate(texts)], start_token=start_token)


def _require_every_layer(plain: StreamedModel, packed: Pack) -> None:
    seen: set[int] = set()
    plain.hidden_STC(packed, [BASE], on_pass=lambda p: seen.update(p.layers_seen))
    if len(seen) < plain.n_layers:
        missing = sorted(set(range(plain.n_layers)) - seen)
        raise ValueError(
            f"architecture {plain.config.model_type!r} bypasses transformers' attention interface in layers {missing}: "
            "its heads cannot be masked"
        )


def _length_beyond_windows(config: Any, max_tokens: int) -> int:
    window = getattr(config, "sliding_window", None)
    return window + 3 if window is not None and window < max_tokens else min(24, max_tokens)


@torch.inference_mode()
def _own_losses(model: Any, ids_1T: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids_1T, use_cache=False).logits[0, :-1].float()
    return F.cross_entropy(logits, ids_1T[0, 1:], reduction="none")


@torch.inference_mode()
def _explicit_losses(model: Any, ids_1T: torch.Tensor, streamed: StreamedModel, heads: HeadSet) -> torch.Tensor:
    model.set_attn_implementation(_EXPLICIT)
    masks = {head.layer: torch.zeros(1, streamed.n_heads, dtype=torch.bool, device=model.device) for head in heads}
    for head in heads:
        masks[head.layer][0, head.index] = True
    documents = Documents.on(model.device, [(0, ids_1T.shape[1])])
    try:
        with in_flight(AttentionPass(documents, masks)):
            return _own_losses(model, ids_1T)
    finally:
        model.set_attn_implementation(NAME)


def _explicit_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The masked heads' weights written out as 1/n over what they may see; all other heads as in the packed path."""
    attention_pass = current_pass()
    masked_1H = attention_pass.head_masks.get(module.layer_idx)
    with in_flight(AttentionPass(attention_pass.documents)):
        out_1THD, _ = packed_attention(module, query, key, value, attention_mask, **kwargs)
    if masked_1H is None:
        return out_1THD, None
    positions = torch.arange(query.shape[2], device=query.device)
    visible = visible_QK(positions, positions, kwargs.get("sliding_window")).float()
    weights = (visible / visible.sum(dim=-1, keepdim=True)).to(value.dtype)
    uniform_1HTD = weights @ per_query_head(value, query.shape[1])
    return torch.where(masked_1H[:, None, :, None], uniform_1HTD.transpose(1, 2), out_1THD), None


AttentionInterface.register(_EXPLICIT, _explicit_attention)
