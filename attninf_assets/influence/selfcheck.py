"""Before a model scores anything: does the fast path compute what the model itself computes?

Most architectures hand their attention to transformers' interface and the packed path is exact. One that bypasses it
in some layer, or adds something this project does not know, would give wrong scores quietly; so it is compared on load
and refused by name.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from attninf_assets.influence.attention import NAME, AttentionPass, current_pass, in_flight, packed_attention
from attninf_assets.influence.float8 import to_float8
from attninf_assets.influence.fusion import fuse, fused_log_sum_exp, unfuse
from attninf_assets.influence.kernels import Documents, kernels_for, per_query_head, visible_QK
from attninf_assets.influence.masking import BASE, Head, HeadSet
from attninf_assets.influence.packing import Pack, Window, pack
from attninf_assets.influence.pretrained import decoder_layers
from attninf_assets.influence.streams import StreamedModel

TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 2e-3, torch.bfloat16: 0.25}  # nats on any single token
FLOAT8_MEAN_TOLERANCE = 0.5  # nats a token: float8 losses against bfloat16 ones
FLOAT8_TOLERANCE = 4.0  # nats on any single token: of two ways to compute in float8
_EXPLICIT = "attninf_explicit"
_LOG = logging.getLogger(__name__)


def verified(
    model: Any, *, start_token: int, max_tokens: int, float8: bool = False, fusing: bool = False
) -> StreamedModel:
    """The model, ready for packed multi-stream passes, after comparing them with its own forward pass.

    Checked on two packed documents, one longer than any sliding window that windows of `max_tokens` can reach: the base
    stream against the model's eager attention on each document alone; a masked stream against attention weights written
    out as uniform ones; the shared trunk against none. Raises `ValueError` naming the architecture where losses
    disagree. Of the device's attention kernels the fastest that agrees is taken, and a trunk that cannot be shared is
    not. `float8` then converts the layers' matrix products, and raises where that spoils the losses. Where `fusing` is
    asked for, norms and activations are compiled if that works here and agrees.
    """
    name = model.config.model_type
    packed = _check_documents(model, start_token, max_tokens)
    rows = [packed.input_ids_T[None, start:end].to(model.device) for start, end in packed.bounds]
    try:
        model.set_attn_implementation("eager")
        own_R = torch.cat([_own_losses(model, ids) for ids in rows])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"architecture {name!r}: its eager attention cannot be run to compare with: {error}"
        ) from error

    *fast, plainest = kernels_for(model.device, model.dtype)
    plain = StreamedModel(model, share_trunk=False, kernel=plainest)
    _require_every_layer(plain, packed)
    heads = frozenset({Head(plain.n_layers // 2, 0), Head(plain.n_layers - 1, plain.n_heads - 1)})
    explicit_R = torch.cat([_explicit_losses(model, ids, plain, heads) for ids in rows])
    check = _Check(packed, [BASE, heads], torch.stack([own_R, explicit_R]), TOLERANCE[model.dtype], name)
    check.require(plain)
    kernel = next(
        (k for k in fast if check.passes(StreamedModel(model, share_trunk=False, kernel=k), f"kernel {k.__name__}")),
        plainest,
    )
    shared = check.trunk_can_be_shared(StreamedModel(model, kernel=kernel))
    ready = StreamedModel(model, share_trunk=shared, kernel=kernel)
    if float8:
        to_float8(model, decoder_layers(model))
        check = _require_near_in_float8(check, ready)
    if fusing and fuse(model):
        fused = StreamedModel(model, share_trunk=shared, kernel=kernel, log_sum_exp=fused_log_sum_exp())
        if check.passes(fused, "fusing norms and activations"):
            return fused
        unfuse(model)
    return ready


@dataclass(frozen=True)
class _Check:
    """What the losses of the check's documents have to be, and how near a candidate has to come."""

    packed: Pack
    streams: Sequence[HeadSet]
    expected_SR: torch.Tensor  # base stream, masked stream
    tolerance: float  # nats on any single token
    architecture: str

    def require(self, candidate: StreamedModel) -> None:
        """Raise `ValueError` naming the architecture and what differs."""
        against = ("packed losses against its own eager attention", "masked losses against explicit uniform attention")
        found_SR = candidate.losses_SR(self.packed, self.streams)
        for found_R, expected_R, what in zip(found_SR, self.expected_SR, against, strict=True):
            _compare(found_R, expected_R, self.tolerance, f"architecture {self.architecture!r}: {what}")

    def passes(self, candidate: StreamedModel, what: str) -> bool:
        """Whether the candidate runs for the model's shapes on this device, and agrees; says why where it does not."""
        try:
            self.require(candidate)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError, ImportError, OSError) as error:  # a compiler may be missing
            _LOG.warning("%s is not used: %s", what, error)
            return False
        return True

    def trunk_can_be_shared(self, sharing: StreamedModel) -> bool:
        """Whether what a layer keeps from below the split broadcasts over the streams, and the losses agree."""
        try:
            shared_SR = sharing.losses_SR(self.packed, self.streams)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return False
        return bool(torch.isfinite(shared_SR).all() and (shared_SR - self.expected_SR).abs().max() <= self.tolerance)


def _check_documents(model: Any, start_token: int, max_tokens: int) -> Pack:
    config = model.config.get_text_config()
    rng = random.Random(0)  # noqa: S311
    lengths = (_length_beyond_windows(config, max_tokens), 9)
    texts = [[rng.randrange(config.vocab_size) for _ in range(n)] for n in lengths]
    return pack([Window(i, ids) for i, ids in enumerate(texts)], start_token=start_token)


def _require_near_in_float8(check: _Check, model: StreamedModel) -> _Check:
    """The check for what follows: against the float8 losses, whose single tokens are rough."""
    found_SR = model.losses_SR(check.packed, check.streams)
    difference = (found_SR - check.expected_SR).abs().mean().item()
    if not difference <= FLOAT8_MEAN_TOLERANCE:  # not a number is no small number
        raise ValueError(
            f"architecture {check.architecture!r}: in float8 tokens' losses differ by {difference:.2g} nats on "
            f"average, more than {FLOAT8_MEAN_TOLERANCE:g}: use numeric_class bfloat16"
        )
    return replace(check, expected_SR=found_SR, tolerance=FLOAT8_TOLERANCE)


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


def _compare(found_R: torch.Tensor, expected_R: torch.Tensor, tolerance: float, what: str) -> None:
    # max(0, nan) is 0: finiteness has to be asked for.
    if not (torch.isfinite(found_R).all() and torch.isfinite(expected_R).all()):
        raise ValueError(f"{what}: losses are not finite")
    difference = (found_R - expected_R).abs().max().item()
    if difference > tolerance:
        raise ValueError(
            f"{what}: a token's loss differs by {difference:.2g} nats, more than {tolerance:g}; "
            "this architecture is not supported"
        )


AttentionInterface.register(_EXPLICIT, _explicit_attention)
