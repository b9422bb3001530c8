"""Before a model scores anything: the fast path is compared with the slow one, and what disagrees is not used."""

import logging
from dataclasses import replace
from typing import Any

import torch

from attninf_assets.influence.architecture import Check, check_architecture, check_documents, in_float32
from attninf_assets.influence.float8 import to_float8
from attninf_assets.influence.fusion import fuse, fused_log_sum_exp, unfuse
from attninf_assets.influence.kernels import Kernel, kernels_for
from attninf_assets.influence.pretrained import decoder_layers
from attninf_assets.influence.streams import StreamedModel

KERNEL_TOLERANCE = 0.03  # between two 16-bit attention kernels, of a layer's largest output
FUSED_TOLERANCE = 0.15  # nats a token on average: 16-bit norms that round at other places
FLOAT8_TOLERANCE = 0.5  # nats a token on average: float8 against what it replaces
_LOG = logging.getLogger(__name__)


def verified(
    model: Any, *, start_token: int, max_tokens: int, float8: bool = False, fusing: bool = False
) -> StreamedModel:
    """The model, ready for packed multi-stream passes, after comparing them with its own forward pass.

    Checked on two packed documents, one longer than any sliding window that windows of `max_tokens` can reach, with the
    weights in float32, whatever they are in otherwise: the base stream against the model's eager attention on each
    document alone; a masked stream against attention weights written out as uniform ones; the shared trunk against
    none. Raises `ValueError` naming the architecture where losses disagree; a trunk that cannot be shared is not.

    Of the device's attention kernels the fastest is taken that agrees with the plainest in every layer. `float8` then
    converts the layers' matrix products, and raises where that spoils the losses. Where `fusing` is asked for, norms
    and activations are compiled if that works here and agrees.
    """
    packed = check_documents(model, start_token, max_tokens)
    with in_float32(model) as exact:
        check, shared = check_architecture(model, packed, exact=exact)
    kernel = _fastest_kernel(model, check)
    ready = StreamedModel(model, share_trunk=shared, kernel=kernel)
    if float8 or fusing:
        check = replace(check, expected_SR=ready.losses_SR(packed, check.streams), on_average=True)
    if float8:
        to_float8(model, decoder_layers(model))
        replace(check, tolerance=FLOAT8_TOLERANCE).require(ready, ("in float8 base losses", "in float8 masked losses"))
        check = replace(check, expected_SR=ready.losses_SR(packed, check.streams))
    if fusing and fuse(model):
        fused = StreamedModel(model, share_trunk=shared, kernel=kernel, log_sum_exp=fused_log_sum_exp())
        if replace(check, tolerance=FLOAT8_TOLERANCE if float8 else FUSED_TOLERANCE).passes(fused, "fusing"):
            return fused
        unfuse(model)
    return ready


def _fastest_kernel(model: Any, check: Check) -> Kernel:
    """The first of the device's kernels whose outputs agree with the plainest one's in every layer, both streams."""
    *fast, plainest = kernels_for(model.device, model.dtype)
    for kernel in fast:
        furthest = 0.0

        def compared(*arguments: Any, kernel: Kernel = kernel) -> torch.Tensor:
            nonlocal furthest
            expected = plainest(*arguments)
            apart = (kernel(*arguments).float() - expected.float()).abs().max() / expected.float().abs().max()
            furthest = max(furthest, apart.item()) if torch.isfinite(apart) else float("inf")
            return expected

        try:
            StreamedModel(model, share_trunk=False, kernel=compared).losses_SR(check.packed, check.streams)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, TypeError, ValueError) as error:
            _LOG.warning("attention kernel %s is not used: %s", kernel.__name__, error)
            continue
        if furthest <= KERNEL_TOLERANCE:
            return kernel
        _LOG.warning("attention kernel %s is not used: it is off by %.2g of the output", kernel.__name__, furthest)
    return plainest
