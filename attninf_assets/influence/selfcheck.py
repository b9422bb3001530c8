"""Before a model scores anything: does the fast path compute what the model itself computes?

Most architectures hand their attention to transformers' interface and the packed path is exact. One that bypasses it
in some layer, or adds something this project does not know, would give wrong scores quietly; so it is compared on load
and refused by name.
"""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from attninf_assets.influence.attention import AttentionPass, current_pass, in_flight, packed_attention
from attninf_assets.influence.fusion import fuse, fused_log_sum_exp, unfuse
from attninf_assets.influence.kernels import Documents, Kernel, kernels_for, per_query_head, visible_QK
from attninf_assets.influence.masking import BASE, Head, HeadSet
from attninf_assets.influence.packing import Pack, Window, pack
from attninf_assets.influence.streams import StreamedModel

TOLERANCE: Mapping[torch.dtype, float] = {torch.float32: 2e-3, torch.bfloat16: 0.25}  # nats on any single token
_EXPLICIT = "attninf_explicit"
_LOG = logging.getLogger(__name__)


def verified(model: Any, *, start_token: int, max_tokens: int, fusing: bool = False) -> StreamedModel:
    """The model, ready for packed multi-stream passes, after comparing them with its own forward pass.

    Checked on two packed documents, one longer than any sliding window that windows of `max_tokens` can reach: the base
    stream against the model's eager attention on each document alone; a masked stream against attention weights written
    out as uniform ones; the shared trunk against none. Raises `ValueError` naming the architecture where losses
    disagree. Of the device's attention kernels the fastest that agrees is taken, a trunk that cannot be shared is not,
    and where `fusing` is asked for, norms and activations are compiled if that works here and agrees.
    """
    name = model.config.model_type
    config = model.config.get_text_config()
    lengths = (_length_beyond_windows(config, max_tokens), 9)
    rng = random.Random(0)  # noqa: S311
    texts = [[rng.randrange(config.vocab_size) for _ in range(n)] for n in lengths]
    packed = pack([Window(i, ids) for i, ids in enumerate(texts)], start_token=start_token)
    tolerance = TOLERANCE[model.dtype]
    rows = [torch.tensor([[start_token, *ids]], device=model.device) for ids in texts]

    try:
        model.set_attn_implementation("eager")
        own_R = torch.cat([_own_losses(model, ids) for ids in rows])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"architecture {name!r}: its eager attention cannot be run to compare with: {error}"
        ) from error

    plain = StreamedModel(model, share_trunk=False)
    _require_every_layer(plain, packed)
    heads = frozenset({Head(plain.n_layers // 2, 0), Head(plain.n_layers - 1, plain.n_heads - 1)})
    explicit_R = torch.cat([_explicit_losses(model, ids, plain, heads) for ids in rows])
    expected_SR = torch.stack([own_R, explicit_R])
    streams = [BASE, heads]

    def agrees(candidate: StreamedModel) -> None:
        base_R, masked_R = candidate.losses_SR(packed, streams)
        _compare(base_R, own_R, tolerance, f"architecture {name!r}: packed losses against its own eager attention")
        _compare(
            masked_R, explicit_R, tolerance, f"architecture {name!r}: masked losses against explicit uniform attention"
        )

    *fast, plainest = kernels_for(model.device, model.dtype)
    agrees(StreamedModel(model, share_trunk=False, kernel=plainest))
    kernel = next(
        (
            k
            for k in fast
            if _serves(StreamedModel(model, kernel=k, share_trunk=False), agrees, f"attention kernel {k.__name__}")
        ),
        plainest,
    )
    shared = _trunk_can_be_shared(model, packed, streams, expected_SR, tolerance, kernel)
    if fusing and fuse(model):
        fused = StreamedModel(model, share_trunk=shared, kernel=kernel, log_sum_exp=fused_log_sum_exp())
        if _serves(fused, agrees, "fusing norms and activations"):
            return fused
        unfuse(model)
    return StreamedModel(model, share_trunk=shared, kernel=kernel)


def _require_every_layer(plain: StreamedModel, packed: Pack) -> None:
    seen: set[int] = set()
    plain.hidden_STC(packed, [BASE], on_pass=lambda p: seen.update(p.layers_seen))
    if len(seen) < plain.n_layers:
        missing = sorted(set(range(plain.n_layers)) - seen)
        raise ValueError(
            f"architecture {plain.config.model_type!r} bypasses transformers' attention interface in layers {missing}: "
            "its heads cannot be masked"
        )


def _serves(candidate: StreamedModel, agrees: Callable[[StreamedModel], None], what: str) -> bool:
    """Whether the candidate runs for the model's shapes on this device, and agrees; says why where it does not."""
    try:
        agrees(candidate)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, ImportError, OSError) as error:  # a compiler may be missing
        _LOG.warning("%s is not used: %s", what, error)
        return False
    return True


def _trunk_can_be_shared(
    model: Any,
    packed: Pack,
    streams: Sequence[HeadSet],
    expected_SR: torch.Tensor,
    tolerance: float,
    kernel: Kernel,
) -> bool:
    try:
        shared_SR = StreamedModel(model, kernel=kernel).losses_SR(packed, streams)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # what a layer keeps from below the split does not broadcast over the streams
        return False
    return bool(torch.isfinite(shared_SR).all() and (shared_SR - expected_SR).abs().max() <= tolerance)


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
    with in_flight(AttentionPass(documents, masks)):
        return _own_losses(model, ids_1T)


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
