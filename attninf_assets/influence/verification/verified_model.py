"""The choice of the fastest way to run a model that agrees with the plain one, made before anything is scored."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from attninf_assets.influence.acceleration.float8 import to_float8
from attninf_assets.influence.acceleration.fusion import fuse, fused_log_sum_exp, unfuse
from attninf_assets.influence.acceleration.onednn import has_onednn, onednn_tiles, restore, to_onednn
from attninf_assets.influence.model.kernels import Documents, Kernel, Logits, kernels_for
from attninf_assets.influence.model.layers import LinearLayer, decoder_layers
from attninf_assets.influence.model.loss import log_sum_exp_in_place
from attninf_assets.influence.model.mixed_precision import product_type
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.runtime.token_budget import is_out_of_memory
from attninf_assets.influence.verification.architecture import Check, check_architecture, check_documents, in_float32
from attninf_assets.influence.verification.remembered import SelfCheckRecord, Verdict
from attninf_assets.influence.verification.residual import require_float32_residual

KERNEL_TOLERANCE = 0.03  # between two 16-bit attention kernels, of a layer's largest output
SIXTEEN_BIT_TOLERANCE = 0.15  # nats a token on average: products of rounded operands against float32 ones
# Nats a token on average: sums in another order, and a rounding behind them falls the other way. On the sample model's
# random tokens that was 0.034 between two libraries' products, as much as rounding itself.
FUSED_TOLERANCE = 0.15
FLOAT8_TOLERANCE = 0.5  # nats a token on average: float8 against what it replaces
_LOG = logging.getLogger(__name__)


def verified(
    model: Any,
    *,
    start_token: int,
    max_tokens: int,
    float8: bool = False,
    fusing: bool = False,
    record: SelfCheckRecord | None = None,
) -> StreamedModel:
    """The model, ready for packed multi-stream passes, after comparing them with its own forward pass.

    Checked on two packed documents, one longer than any sliding window that windows of `max_tokens` can reach, with the
    weights in float32, whatever they are in otherwise: the base stream against the model's eager attention on each
    document alone; a masked stream against attention weights written out as uniform ones; the shared trunk against
    none. Raises `ValueError` naming the architecture where losses disagree; a trunk that cannot be shared is not.

    Of the device's attention kernels the fastest is taken that agrees with the plainest in every layer. In the 16-bit
    classes the residual stream must be float32 and keep its precision through every layer, and losses must be near
    those of the same weights in float32. `float8` then
    converts the layers' matrix products, and raises where that spoils the losses. Where `fusing` is asked for, norms
    and activations are compiled if that works here and agrees. On the CPU, oneDNN multiplies if it agrees.

    With `record`, a verdict that stands there is applied and nothing is compared; else the verdict goes there once all
    of this has passed in float32.
    """
    verdict = None if record is None else record.read()
    kernels = kernels_for(model.device, product_type(model))
    if verdict is not None and verdict.kernel in [kernel.__name__ for kernel in kernels]:
        return _as_decided(model, verdict, float8=float8)
    ready, exactly = _checked(model, start_token=start_token, max_tokens=max_tokens, float8=float8, fusing=fusing)
    if record is not None and exactly:
        record.write(_verdict_on(ready))
    return ready


def _as_decided(model: Any, verdict: Verdict, *, float8: bool) -> StreamedModel:
    """The model as `_checked` left it when it came to the verdict."""
    [kernel] = [one for one in kernels_for(model.device, product_type(model)) if one.__name__ == verdict.kernel]
    ready = StreamedModel(model, share_trunk=verdict.share_trunk, kernel=kernel)
    if float8:
        to_float8(model, decoder_layers(model))
    if verdict.fused:
        fuse(model)
        return _fused(ready)
    return _on_onednn(ready)[0] if verdict.onednn else ready


def _verdict_on(ready: StreamedModel) -> Verdict:
    return Verdict(
        share_trunk=ready.share_trunk,
        kernel=ready.kernel.__name__,
        fused=ready.log_sum_exp is not log_sum_exp_in_place,
        onednn=ready.tiles is not None,
    )


def _checked(
    model: Any, *, start_token: int, max_tokens: int, float8: bool, fusing: bool
) -> tuple[StreamedModel, bool]:
    """The model after all of `verified`'s comparisons, and whether they were made in float32."""
    packed = check_documents(model, start_token, max_tokens)
    try:
        with in_float32(model):
            check, shared = check_architecture(model, packed, exact=True)
        exactly = True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _LOG.warning(
            "no room on %s to check the model in float32: it is checked in %s", model.device, product_type(model)
        )
        check, shared = check_architecture(model, packed, exact=False)
        exactly = False
    if product_type(model) != torch.float32:
        require_float32_residual(StreamedModel(model, share_trunk=shared), packed)
    kernel = _fastest_kernel(model, check)
    ready = StreamedModel(model, share_trunk=shared, kernel=kernel)
    if ready.product_type != torch.float32:
        check = replace(check, tolerance=SIXTEEN_BIT_TOLERANCE, on_average=True)
        check.require(ready, ("in 16 bits base losses", "in 16 bits masked losses"))
        check = replace(check, expected_SR=ready.losses_SR(packed, check.streams), tolerance=FUSED_TOLERANCE)
    if float8:
        to_float8(model, decoder_layers(model))
        check = replace(check, tolerance=FLOAT8_TOLERANCE)
        check.require(ready, ("in float8 base losses", "in float8 masked losses"))
        check = replace(check, expected_SR=ready.losses_SR(packed, check.streams))
    if fusing and fuse(model):
        fused = _fused(ready)
        if check.passes(fused, "fusing"):
            return fused, exactly
        unfuse(model)
    return (_with_onednn(ready, check) if has_onednn(model.device) else ready), exactly


def _fused(ready: StreamedModel) -> StreamedModel:
    return StreamedModel(
        ready.model, share_trunk=ready.share_trunk, kernel=ready.kernel, log_sum_exp=fused_log_sum_exp()
    )


def _on_onednn(ready: StreamedModel) -> tuple[StreamedModel, Sequence[LinearLayer]]:
    """The model with its products computed by oneDNN, and the layers that were replaced for it."""
    model = ready.model
    replaced = to_onednn(model)
    tiles = onednn_tiles(model)
    return StreamedModel(model, share_trunk=ready.share_trunk, kernel=ready.kernel, tiles=tiles), replaced


def _with_onednn(ready: StreamedModel, check: Check) -> StreamedModel:
    """The model with its products computed by oneDNN; as it was, where it then fails or disagrees."""
    faster, replaced = _on_onednn(ready)
    if check.passes(faster, "oneDNN"):
        return faster
    restore(replaced)
    return ready


def _fastest_kernel(model: Any, check: Check) -> Kernel:
    """The first of the device's kernels that agrees with the plainest one."""
    *fast, plainest = kernels_for(model.device, product_type(model))
    for kernel in fast:
        try:
            furthest = max(_furthest_in_layers(model, check, kernel, plainest), _furthest(model, kernel, plainest))
        except (RuntimeError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            _LOG.warning("attention kernel %s is not used: %s", kernel.__name__, error)
            continue
        if furthest <= KERNEL_TOLERANCE:
            return kernel
        _LOG.warning("attention kernel %s is not used: it is off by %.2g of the output", kernel.__name__, furthest)
    return plainest


def _furthest_in_layers(model: Any, check: Check, kernel: Kernel, plainest: Kernel) -> float:
    """The largest difference of outputs, as a share of the largest output, over the layers and both streams."""
    furthest = 0.0

    def compared(*arguments: Any) -> torch.Tensor:
        nonlocal furthest
        expected = plainest(*arguments)
        furthest = max(furthest, _apart(kernel(*arguments), expected))
        return expected

    StreamedModel(model, share_trunk=False, kernel=compared).losses_SR(check.packed, check.streams)
    return furthest


@torch.inference_mode()
def _furthest(model: Any, kernel: Kernel, plainest: Kernel) -> float:
    """The same on made-up documents in the model's head sizes, with windows so short that each position counts."""
    config = model.config.get_text_config()
    n_heads = config.num_attention_heads
    n_key_heads = getattr(config, "num_key_value_heads", None) or n_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    documents = Documents.on(model.device, [(0, 1), (1, 18), (18, 40)])
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, heads, 40, size, generator=generator).to(model.device, product_type(model))
        for heads in (n_heads, n_key_heads, n_key_heads)
    )
    arguments = [(q, k, v, documents, Logits(size**-0.5, window)) for window in (None, 1, 4)]
    return max(_apart(kernel(*call), plainest(*call)) for call in arguments)


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    share = (found.float() - expected.float()).abs().max() / expected.float().abs().max()
    return share.item() if torch.isfinite(share) else float("inf")
