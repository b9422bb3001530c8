"""Operands of products in bfloat16, everything between two products in float32: functions, and whole models."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence.model.head import BASE, Head
from attninf_assets.influence.model.layers import decoder_layers, linear_layers
from attninf_assets.influence.model.mixed_precision import product_type, to_sixteen_bit
from attninf_assets.influence.model.packing import Window, pack
from attninf_assets.influence.model.sixteen_bit import (
    SixteenBitLinear,
    SixteenBitProducts,
    linear_product,
    matrix_product,
    operand,
)
from attninf_assets.influence.verification.verified_model import verified
from attninf_assets_tests.support import oracle
from attninf_assets_tests.support.tiny_models import SUPPORTED, tiny_model

MASKED = frozenset({(1, 0), (2, 3)})
STREAMS = [BASE, frozenset({Head(1, 0), Head(2, 3)})]
DOCUMENTS = [np.random.default_rng(n).integers(3, 300, length).tolist() for n, length in enumerate((40, 1, 25, 17))]


def rounded(x: torch.Tensor) -> torch.Tensor:
    return x.bfloat16().double()


@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 40),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_layers_product_rounds_its_operands_and_neither_its_sum_nor_its_bias(
    shape: list[int], inputs: int, outputs: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    x, weight_NK, bias_N = torch.randn(*shape, inputs), torch.randn(outputs, inputs), torch.randn(outputs)
    layer = SixteenBitLinear(weight_NK, bias_N if bias else None)
    expected = rounded(x) @ rounded(weight_NK).T + (bias_N if bias else 0)
    assert layer.weight.dtype == torch.bfloat16
    assert layer(x).dtype == torch.float32
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-5, rtol=1e-6)
    exact = linear_product(x, weight_NK, None)
    torch.testing.assert_close(exact.double(), x.double() @ weight_NK.double().T, atol=1e-5, rtol=1e-6)


@settings(deadline=None)
@given(
    leading=st.sampled_from([((), ()), ((3,), (3,)), ((2, 3), (2, 3)), ((2, 1), (3,)), ((), (4,))]),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
)
def test_a_matrix_product_is_that_of_the_rounded_matrices(
    leading: tuple[tuple[int, ...], tuple[int, ...]], sizes: tuple[int, int, int]
) -> None:
    rows, inputs, columns = sizes
    a, b = torch.randn(*leading[0], rows, inputs), torch.randn(*leading[1], inputs, columns)
    torch.testing.assert_close(matrix_product(a, b).double(), rounded(a) @ rounded(b), atol=1e-5, rtol=1e-6)


def test_what_is_rounded_twice_is_rounded_once() -> None:
    x = torch.randn(1000)
    assert torch.equal(operand(operand(x)), operand(x))
    assert not torch.equal(operand(x), x)


@pytest.mark.parametrize(
    "multiply",
    [
        lambda x, w: F.linear(x, w.T),
        lambda x, w: x @ w,
        torch.matmul,
        torch.mm,
        lambda x, w: torch.bmm(x[None], w[None])[0],
        lambda x, w: F.grouped_mm(x, w[None], offs=torch.tensor([len(x)], dtype=torch.int32)),
    ],
)
def test_every_way_to_write_a_product_is_one_with_float32_sums(multiply: Any) -> None:
    x, w = torch.randn(16, 32), torch.randn(32, 48)
    with SixteenBitProducts():
        found, plain = multiply(x, w.bfloat16()), multiply(x, w)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), rounded(x) @ rounded(w), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(plain.double(), x.double() @ w.double(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", SUPPORTED)
def test_matrices_are_16_bit_and_the_residual_stream_is_float32_in_every_layer(name: str) -> None:
    n_linear = len(linear_layers(tiny_model(name)))
    model = verified(to_sixteen_bit(tiny_model(name)), start_token=1, max_tokens=64)
    assert product_type(model.model) == torch.bfloat16
    assert sum(p.dtype == torch.bfloat16 for p in to_sixteen_bit(tiny_model(name)).parameters()) >= n_linear > 0
    seen: list[torch.dtype] = []
    for layer in decoder_layers(model.model):
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append([*args, *kwargs.values()][0].dtype), with_kwargs=True
        )
        layer.register_forward_hook(lambda *a: seen.append((a[2][0] if isinstance(a[2], tuple) else a[2]).dtype))
    losses_SR = model.losses_SR(pack([Window(0, DOCUMENTS[0])], start_token=1), STREAMS)
    assert seen == [torch.float32] * (2 * model.n_layers)
    assert losses_SR.dtype == torch.float32


@pytest.mark.parametrize("name", SUPPORTED)
def test_losses_are_those_of_a_plain_float32_model_whose_products_have_rounded_operands(name: str) -> None:
    model = verified(to_sixteen_bit(tiny_model(name)), start_token=1, max_tokens=64)
    slow = oracle.with_rounded_operands(tiny_model(name))
    found_SR = model.losses_SR(pack([Window(n, d) for n, d in enumerate(DOCUMENTS)], start_token=1), STREAMS)
    for found_R, masked in zip(found_SR, (oracle.NOBODY, MASKED), strict=True):
        expected, exact = (
            np.concatenate(
                [oracle.document_losses(m, d, start_token=1, max_tokens=64, masked=masked) for d in DOCUMENTS]
            )
            for m in (slow, tiny_model(name))
        )
        apart, from_exact = (np.abs(found_R.numpy() - losses).mean() for losses in (expected, exact))
        assert apart < 5e-3
        assert from_exact > 2 * apart, "or else nothing was rounded"
