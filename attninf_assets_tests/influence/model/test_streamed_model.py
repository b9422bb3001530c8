from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.influence.model.head import BASE, Head, HeadSet, Mask
from attninf_assets.influence.model.packing import Window, cut_into_windows, pack
from attninf_assets.influence.model.streamed_model import StreamedModel
from attninf_assets.influence.runtime.token_budget import TokenBudget, in_budget
from attninf_assets_tests.support import oracle
from attninf_assets_tests.support.tiny_models import N_HEADS, N_LAYERS, SUPPORTED, UNSHARED, WINDOW, tiny_model
from benchmarks.rigs.made_up_text import VOCAB

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

TOLERANCE = 1e-4  # nats on any token; between float32 kernels that add in another order
START = 1
head_sets = st.frozensets(st.builds(Head, st.integers(0, N_LAYERS - 1), st.integers(0, N_HEADS - 1)), max_size=5)
documents_ = st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=24), min_size=1, max_size=4)


@cache
def streamed(name: str, *, share_trunk: bool = True) -> StreamedModel:
    return StreamedModel(tiny_model(name), share_trunk=share_trunk)


def documents(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCAB, (n,), generator=generator).tolist() for n in lengths]


def losses_of(
    model: StreamedModel, token_ids: Sequence[Sequence[int]], streams: Sequence[HeadSet], *, mask: Mask = "uniform"
) -> list[torch.Tensor]:
    """Per document: [S, tokens] losses of all documents packed into one row."""
    packed = pack([Window(number, ids) for number, ids in enumerate(token_ids)], start_token=START)
    return list(model.losses_SR(packed, streams, mask=mask).split([len(ids) for ids in token_ids], dim=1))


@pytest.mark.parametrize("mask", ["uniform", "zero"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_packed_losses_of_every_stream_equal_the_oracle(name: str, mask: Mask) -> None:
    model = tiny_model(name)
    texts = documents(WINDOW * 3, 1, 9)
    streams = [BASE, frozenset({Head(1, 0), Head(2, 3)}), frozenset({Head(0, 1), Head(0, 2), Head(2, 0)})]
    found = losses_of(StreamedModel(model, share_trunk=name not in UNSHARED), texts, streams, mask=mask)
    moved = [0.0] * len(streams)
    for ids, found_SR in zip(texts, found, strict=True):
        for stream, heads in enumerate(streams):
            masked = frozenset((head.layer, head.index) for head in heads)
            expected = oracle.document_losses(model, ids, start_token=START, max_tokens=1000, masked=masked, mask=mask)
            assert found_SR[stream].tolist() == pytest.approx(expected, abs=TOLERANCE)
            moved[stream] = max(moved[stream], (found_SR[stream] - found_SR[0]).abs().max().item())
    assert min(moved[1:]) > 0.05, "the masked heads have to matter for the comparison to mean anything"


@settings(deadline=None, max_examples=25)
@given(texts=documents_, others=documents_, heads=head_sets, name=st.sampled_from(["llama", "mistral", "gpt_oss"]))
def test_a_documents_losses_do_not_depend_on_its_neighbours_or_its_place(
    texts: list[list[int]], others: list[list[int]], heads: HeadSet, name: str
) -> None:
    model = streamed(name)
    alone = [losses_of(model, [ids], [BASE, heads])[0] for ids in texts]
    among = losses_of(model, [*others, *reversed(texts)], [BASE, heads])[len(others) :][::-1]
    for one, other in zip(alone, among, strict=True):
        torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)


@settings(deadline=None, max_examples=25)
@given(
    texts=documents_,
    streams=st.lists(head_sets, min_size=1, max_size=4),
    name=st.sampled_from(["llama", "gemma2", "gpt2"]),
    mask=st.sampled_from(["uniform", "zero"]),
)
def test_sharing_the_trunk_changes_nothing(
    texts: list[list[int]], streams: list[HeadSet], name: str, mask: Mask
) -> None:
    shared = torch.cat(losses_of(streamed(name), texts, streams, mask=mask), dim=1)
    unshared = torch.cat(losses_of(streamed(name, share_trunk=False), texts, streams, mask=mask), dim=1)
    torch.testing.assert_close(shared, unshared, atol=TOLERANCE, rtol=0)


@settings(deadline=None, max_examples=20)
@given(texts=documents_, streams=st.lists(head_sets, min_size=1, max_size=4))
def test_a_streams_losses_do_not_depend_on_the_streams_beside_it(
    texts: list[list[int]], streams: list[HeadSet]
) -> None:
    together = torch.cat(losses_of(streamed("llama"), texts, streams), dim=1)
    for row, heads in zip(together, streams, strict=True):
        [alone] = torch.cat(losses_of(streamed("llama"), texts, [heads]), dim=1)
        torch.testing.assert_close(row, alone, atol=TOLERANCE, rtol=0)


@settings(deadline=None, max_examples=20)
@given(texts=documents_, heads=head_sets, token_budget=st.integers(2, 80), max_tokens=st.integers(2, 30))
def test_a_documents_loss_does_not_depend_on_the_token_budget_and_equals_the_oracle_window_by_window(
    texts: list[list[int]], heads: HeadSet, token_budget: int, max_tokens: int
) -> None:
    model = streamed("mistral")
    windows = [w for n, ids in enumerate(texts) for w in cut_into_windows(n, ids, max_tokens=max_tokens)]
    sums = [0.0] * len(texts)
    packs = in_budget(
        windows,
        lambda some: pack(some, start_token=START),
        size=lambda window: window.n_tokens,
        token_budget=TokenBudget(token_budget),
        device=model.device,
        on_halved=lambda halved: pytest.fail(str(halved)),
    )
    for packed in packs:
        assert len(packed.input_ids_T) <= token_budget or len(packed.windows) == 1
        [losses_R] = model.losses_SR(packed, [heads])
        for window, part in zip(
            packed.windows, losses_R.split([len(w.token_ids) for w in packed.windows]), strict=True
        ):
            sums[window.document] += part.sum().item()
    masked = frozenset((head.layer, head.index) for head in heads)
    for ids, found in zip(texts, sums, strict=True):
        expected = oracle.document_losses(model.model, ids, start_token=START, max_tokens=max_tokens, masked=masked)
        assert found == pytest.approx(sum(expected), abs=TOLERANCE * len(ids))


def test_answers_are_the_losses_and_hits_of_the_rows_asked_for() -> None:
    model = streamed("llama")
    texts = documents(12, 9)
    packed = pack([Window(n, ids) for n, ids in enumerate(texts)], start_token=START)
    heads = frozenset({Head(1, 1), Head(1, 2)})
    all_SR = model.losses_SR(packed, [BASE, heads])
    rows_R = torch.tensor([2, 5, 13, 20])  # the second document starts at 13; row 12 predicts nothing
    losses_SR, correct_SR = model.answers_SR(packed, rows_R, [BASE, heads])
    torch.testing.assert_close(losses_SR, all_SR[:, [2, 5, 12, 19]], atol=TOLERANCE, rtol=0)
    assert correct_SR.dtype == torch.bool
    assert correct_SR.shape == (2, 4)
    # Feed the model its own predictions: they are all correct.
    ids = packed.input_ids_T.clone()
    with torch.inference_mode():
        own = model.model.get_output_embeddings()(model.hidden_STC(packed, [BASE])[0]).argmax(-1)
    ids[21] = own[20]
    chosen = pack([Window(0, texts[0]), Window(1, ids[14:].tolist())], start_token=START)
    assert model.answers_SR(chosen, torch.tensor([20]), [BASE])[1].item()


def test_a_pass_leaves_no_hook_behind() -> None:
    model = streamed("llama")
    losses_of(model, documents(5), [BASE, frozenset({Head(1, 0)})])
    with pytest.raises(IndexError):
        losses_of(model, [[VOCAB + 1]], [BASE, frozenset({Head(1, 0)})])
    assert not any(layer._forward_pre_hooks for layer in model.model.model.layers)


# Two that agree in layer 1 and differ in layer 2, one that differs from all below, the base model twice, one repeated.
BRANCHING: list[HeadSet] = [
    frozenset({Head(1, 0), Head(2, 1)}),
    BASE,
    frozenset({Head(0, 2), Head(1, 0)}),
    frozenset({Head(1, 0)}),
    frozenset({Head(2, 3)}),
    BASE,
    frozenset({Head(1, 0), Head(2, 1)}),
]


@pytest.mark.parametrize("mask", ["uniform", "zero"])
@pytest.mark.parametrize("name", SUPPORTED)
def test_every_stream_of_a_branching_pass_equals_a_single_pass_of_that_stream(name: str, mask: Mask) -> None:
    model = StreamedModel(tiny_model(name), share_trunk=name not in UNSHARED)
    texts = documents(WINDOW * 3, 1, 9)
    together = torch.cat(losses_of(model, texts, BRANCHING, mask=mask), dim=1)
    for row, heads in zip(together, BRANCHING, strict=True):
        [alone] = torch.cat(losses_of(model, texts, [heads], mask=mask), dim=1)
        torch.testing.assert_close(row, alone, atol=TOLERANCE, rtol=0)
    assert torch.equal(together[1], together[5])
    assert torch.equal(together[0], together[6])
    apart = torch.cdist(together, together)
    assert {(a, b) for a, b in (apart < 0.05).nonzero().tolist() if a < b} == {(0, 6), (1, 5)}, "all others must differ"


def test_streams_are_one_row_up_to_the_layer_in_which_they_differ() -> None:
    assert rows_in_layers([BASE, frozenset({Head(1, 0)}), frozenset({Head(2, 0)})]) == [1, 2, 3]
    assert rows_in_layers(BRANCHING) == [2, 3, 5]
    assert rows_in_layers([BASE, BASE]) == [1, 1, 1]
    assert rows_in_layers([frozenset({Head(0, 1)})]) == [1, 1, 1]


def test_without_a_shared_trunk_distinct_streams_are_rows_of_their_own_throughout() -> None:
    assert rows_in_layers(BRANCHING, share_trunk=False) == [5, 5, 5]


def rows_in_layers(streams: Sequence[HeadSet], *, share_trunk: bool = True) -> list[int]:
    model = streamed("llama", share_trunk=share_trunk)
    rows_entering: list[int] = []

    def note(_: torch.nn.Module, _args: Any, output: torch.Tensor) -> None:
        rows_entering.append(output.shape[0])

    handles = [layer.mlp.register_forward_hook(note) for layer in model.model.model.layers]
    losses_of(model, documents(5), streams)
    for handle in handles:
        handle.remove()
    return rows_entering


def test_an_architecture_without_a_list_of_decoder_layers_is_refused_by_name() -> None:
    model = tiny_model("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(ValueError, match=r"'llama'.*7 decoder layers"):
        StreamedModel(model)
