"""One form of the same tensors, however they came, held against safetensors' own reader and writer."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from attninf_assets.selector import canonical_weights
from attninf_assets.selector.canonical_weights import link_weights, move_weights, weights_sha256, write_weights
from attninf_assets.selector.model_directory import INDEX, WEIGHTS

Tensors = dict[str, npt.NDArray[Any]]
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).filter(lambda n: n != "__metadata__")
tensors = st.dictionaries(
    names,
    st.tuples(
        st.sampled_from(["float32", "float16", "int64", "uint8", "bool"]),
        st.lists(st.integers(0, 4), max_size=3),
        st.integers(0, 2**32 - 1),
    ),
    min_size=1,
    max_size=7,
).map(lambda drawn: {name: tensor(*of) for name, of in drawn.items()})


def tensor(dtype: str, shape: list[int], seed: int) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 100, size=shape).astype(dtype)


def sharded(directory: Path, content: Tensors, files: list[int]) -> Path:
    """The tensors in files by the numbers given, with an index."""
    directory.mkdir()
    numbers = dict(zip(content, (files * len(content))[: len(content)], strict=True))
    for number in set(numbers.values()):
        part = {name: content[name] for name in content if numbers[name] == number}
        save_file(part, directory / f"model-{number}.safetensors")
    weight_map = {name: f"model-{number}.safetensors" for name, number in numbers.items()}
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return directory


def single(directory: Path, content: Tensors, **metadata: str) -> Path:
    directory.mkdir()
    save_file(content, directory / WEIGHTS, metadata=metadata or None)
    return directory


@settings(deadline=None, max_examples=40)
@given(content=tensors, files=st.lists(st.integers(1, 3), min_size=1, max_size=7), data=st.data())
def test_the_same_tensors_have_the_same_file_in_however_many_files_they_came(
    content: Tensors, files: list[int], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("weights")
    shuffled = {name: content[name] for name in data.draw(st.permutations(list(content)))}
    forms = [
        single(tmp_path / "single", content, format="pt"),
        single(tmp_path / "unnamed", shuffled),
        single(tmp_path / "other", shuffled, format="pt", made_by="another library"),
        sharded(tmp_path / "sharded", shuffled, files),
    ]
    digests = {weights_sha256(form) for form in forms}
    assert len(digests) == 1
    for form in forms:
        for name, bring in [("written", write_weights), ("linked", link_weights), ("moved", move_weights)]:
            (tmp_path / f"{form.name}-{name}").mkdir()
            bring(form, tmp_path / f"{form.name}-{name}")
            assert weights_sha256(tmp_path / f"{form.name}-{name}") in digests
            if name == "written":
                file = tmp_path / f"{form.name}-written" / WEIGHTS
                assert hashlib.sha256(file.read_bytes()).hexdigest() in digests, "the digest is the written file's own"
                with safe_open(file, framework="numpy") as opened:
                    assert set(opened.keys()) == set(content)
                    for key, expected in content.items():
                        found = opened.get_tensor(key)
                        assert found.dtype == expected.dtype
                        np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=40)
@given(content=tensors, data=st.data())
def test_another_bit_name_type_or_shape_is_another_model(
    content: Tensors, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("weights")
    name = data.draw(st.sampled_from(sorted(content)))
    value = content[name]
    rest = {key: content[key] for key in content if key != name}
    others: list[Tensors] = [{**rest, f"{name}'": value}, {**rest, name: value[None]}, {**content, f"{name}'": value}]
    if value.dtype == np.float16:
        others.append({**rest, name: value.view(np.int16)})
    if value.dtype == np.uint8 and value.size:
        flipped = value.reshape(-1).copy()
        flipped[data.draw(st.integers(0, value.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
        others.append({**rest, name: flipped.reshape(value.shape)})
    several = [content, *(other for other in others if len(other) in (len(content), len(content) + 1))]
    digests = {weights_sha256(single(tmp_path / str(number), one)) for number, one in enumerate(several)}
    assert len(digests) == len(several)


def test_a_single_file_that_was_saved_as_models_are_is_canonical_as_it_is(tmp_path: Path) -> None:
    """So its digest is the file's own sha256, and bringing it is copying it."""
    content = {"b": tensor("float32", [2, 3], 1), "a.weight": tensor("float32", [4], 2), "é": tensor("float32", [], 3)}
    source = single(tmp_path / "source", content, format="pt")
    (tmp_path / "written").mkdir()
    write_weights(source, tmp_path / "written")
    assert (tmp_path / "written" / WEIGHTS).read_bytes() == (source / WEIGHTS).read_bytes()


def test_tensors_larger_than_a_chunk_are_read_a_chunk_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"a": tensor("uint8", [1000], 1), "b": tensor("float32", [333], 2)}
    whole = weights_sha256(single(tmp_path / "one", content))
    monkeypatch.setattr(canonical_weights, "_CHUNK", 64)
    assert weights_sha256(sharded(tmp_path / "two", content, [1, 2])) == whole


def test_a_file_that_ends_inside_a_tensor_is_named(tmp_path: Path) -> None:
    source = sharded(tmp_path / "source", {"a": tensor("uint8", [100], 1)}, [1])
    file = source / "model-1.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model-1\.safetensors: ends inside tensor a"):
        weights_sha256(source)
