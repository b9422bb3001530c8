import json
import os
import re
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attninf_assets.influence.model.pretrained import load_model
from attninf_assets.selector.model_directory import INDEX
from attninf_assets.selector.pinning import pin_model
from attninf_assets_tests.support.pins import digests_of
from attninf_assets_tests.support.tiny_gguf import tiny_gguf
from attninf_assets_tests.support.tiny_models import REFUSED, SUPPORTED, save_tiny_model, tiny_model
from benchmarks.rigs.made_up_text import tiny_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

CPU = torch.device("cpu")
ROOM = 3 << 30  # bytes of address space that a hostile model may ask for


@pytest.fixture
def directory(tiny_directory: Path, tmp_path: Path) -> Path:
    """A model directory to spoil."""
    return Path(shutil.copytree(tiny_directory, tmp_path / "source"))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The same in several weight files with an index."""
    tiny_model("llama").save_pretrained(tmp_path / "source", max_shard_size="60KB")
    tiny_tokenizer().save_pretrained(tmp_path / "source")
    assert len(list((tmp_path / "source").glob("model-*.safetensors"))) > 1
    return tmp_path / "source"


def edit(file: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def refusal(source: Path, destination: Path) -> str:
    """What pinning says, the source taken off."""
    with pytest.raises(ValueError, match=r"^selector ") as caught:
        pin_model(str(source), destination)
    message = str(caught.value)
    assert message.startswith(f"selector {source}: "), message
    return message.removeprefix(f"selector {source}: ")


@contextmanager
def limited(*, seconds: float) -> Iterator[None]:
    """The block neither takes longer nor asks for more than `ROOM` of memory, which it would not get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + ROOM, hard))
    begun = time.monotonic()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.monotonic() - begun < seconds


# Links


def test_a_link_that_leads_out_of_the_directory_is_not_followed(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("aws_secret_access_key = hunter2")
    (directory / "merges.txt").symlink_to("../credentials")
    message = refusal(directory, tmp_path / "pinned")
    assert message == f"merges.txt is a link to {tmp_path / 'credentials'}, outside {directory}"
    assert not (tmp_path / "pinned").exists()


def test_links_inside_the_directory_are_followed(directory: Path, tiny_directory: Path, tmp_path: Path) -> None:
    (directory / "weights").mkdir()
    (directory / "model.safetensors").rename(directory / "weights" / "1")
    (directory / "model.safetensors").symlink_to("weights/1")
    assert pin_model(str(directory), tmp_path / "pinned") == digests_of(tiny_directory)
    assert not (tmp_path / "pinned" / "model.safetensors").is_symlink()
    (tmp_path / "elsewhere").symlink_to(directory)
    assert pin_model(str(tmp_path / "elsewhere"), tmp_path / "again", link=True) == digests_of(tiny_directory)


def test_a_snapshot_of_the_hubs_cache_leads_to_its_own_blobs_and_no_further(
    tiny_directory: Path, tmp_path: Path
) -> None:
    snapshot, blobs = (tmp_path / "models--org--name" / part for part in ("snapshots/c0ffee", "blobs"))
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(tiny_directory.iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert pin_model(str(snapshot), tmp_path / "pinned") == digests_of(tiny_directory)
    (tmp_path / "models--other--name").mkdir()
    (tmp_path / "models--other--name" / "merges.txt").write_text("private")
    (snapshot / "merges.txt").symlink_to("../../../models--other--name/merges.txt")
    assert "merges.txt is a link to" in refusal(snapshot, tmp_path / "again")


@pytest.mark.parametrize("kind", ["directory", "pipe", "dangling", "loop"])
def test_what_is_no_file_is_refused_and_not_waited_for(kind: str, directory: Path, tmp_path: Path) -> None:
    file = directory / "merges.txt"
    {
        "directory": file.mkdir,
        "pipe": lambda: os.mkfifo(file),
        "dangling": lambda: file.symlink_to("absent"),
        "loop": lambda: file.symlink_to("merges.txt"),
    }[kind]()
    assert "merges.txt is not a file" in refusal(directory, tmp_path / "pinned")


# The index


@pytest.mark.parametrize(
    "target",
    ["/etc/passwd", "../model-1.safetensors", "sub/model.safetensors", "pytorch_model.bin", "model.bin",
     "other.safetensors", "model-\\..\\x.safetensors", "", 7, None, ["model.safetensors"]],
)  # fmt: skip
def test_an_index_names_only_weight_files_beside_it(target: Any, sharded: Path, tmp_path: Path) -> None:
    (sharded / "pytorch_model.bin").write_bytes(b"a pickle")
    edit(sharded / INDEX, lambda index: index["weight_map"].update({"model.norm.weight": target}))
    message = refusal(sharded, tmp_path / "pinned")
    assert message.startswith(f"{INDEX}: weight_map['model.norm.weight'] is {target!r}, and not a file model*.safetens")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.pop("weight_map"), "weight_map is None, where an object is needed"),
        (lambda i: i.update(weight_map=[1]), r"weight_map is \[1\], where an object is needed"),
        (lambda i: i.update(metadata=1), "metadata is 1, where an object is needed"),
        (
            lambda i: i["weight_map"].update(absent=i["weight_map"]["lm_head.weight"]),
            "'absent'. is 'model-0.*', which has no",
        ),
        (
            lambda i: i["weight_map"].update({"x": "model-9.safetensors"}),
            "is 'model-9.safetensors', and there is no su",
        ),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(
    change: Callable[[Any], Any], message: str, sharded: Path, tmp_path: Path
) -> None:
    edit(sharded / INDEX, change)
    with pytest.raises(ValueError, match=f"^selector {sharded}: {INDEX}: .*{message}"):
        pin_model(str(sharded), tmp_path / "pinned")


def test_an_index_that_does_not_list_a_tensor_of_its_files_is_refused(sharded: Path, tmp_path: Path) -> None:
    """Some would load it and some would not: it could be two models."""
    edit(sharded / INDEX, lambda index: index["weight_map"].pop("model.norm.weight"))
    message = refusal(sharded, tmp_path / "pinned")
    assert message.startswith(f"{INDEX}: weight_map lacks 'model.norm.weight', which is in model-0")


def test_a_tensor_in_two_files_of_the_index_is_refused(sharded: Path, tmp_path: Path) -> None:
    shard, other, *_ = sorted(file.name for file in sharded.glob("model-*.safetensors"))
    weights = load_file(sharded / shard)
    twice = next(iter(weights))
    save_file({**load_file(sharded / other), twice: weights[twice]}, sharded / other, metadata={"format": "pt"})
    assert (
        refusal(sharded, tmp_path / "pinned") == f"{INDEX}: weight_map['{twice}'] is '{shard}', but {other} has it too"
    )


def test_shards_without_an_index_are_refused(sharded: Path, tmp_path: Path) -> None:
    (sharded / INDEX).unlink()
    assert f"without {INDEX}" in refusal(sharded, tmp_path / "pinned")


def test_a_config_that_names_its_own_weight_files_is_refused(directory: Path, tmp_path: Path) -> None:
    edit(directory / "config.json", lambda config: config.update(transformers_weights="x/y.safetensors"))
    assert "transformers_weights names other weights, 'x/y.safetensors'" in refusal(directory, tmp_path / "pinned")


# Weight files


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:7],
        lambda content: b"",
        lambda content: struct.pack("<Q", 2**63) + content[8:],
        lambda content: content[:8] + b"[" + content[9:],
    ],
)
def test_a_weight_file_that_is_not_as_long_as_it_says_is_refused(
    spoil: Callable[[bytes], bytes], directory: Path, tmp_path: Path
) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(spoil(file.read_bytes()))
    assert "model.safetensors is not a whole safetensors file: " in refusal(directory, tmp_path / "pinned")


def test_weights_that_lack_a_parameter_or_have_another_shape_are_refused(directory: Path, tmp_path: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    name = "model.layers.1.self_attn.k_proj.weight"
    for changed in ({name: weights[name][:, :-1].contiguous()}, {}):
        rest = {key: value for key, value in weights.items() if key != name}
        save_file({**rest, **changed}, directory / "model.safetensors", metadata={"format": "pt"})
        shutil.rmtree(tmp_path / "pinned", ignore_errors=True)
        assert "its weight files are not those of the model" in refusal(directory, tmp_path / "pinned")


# The config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 10**9), ("num_hidden_layers", -1), ("num_hidden_layers", 2.5),
        ("num_hidden_layers", "3"), ("num_hidden_layers", True), ("num_attention_heads", 10**9),
        ("num_key_value_heads", -2), ("vocab_size", 10**12), ("vocab_size", -1), ("hidden_size", 1e300),
        ("max_position_embeddings", 10**40), ("intermediate_size", -5), ("head_dim", 2**40),
    ],
)  # fmt: skip
def test_absurd_sizes_are_refused_with_field_and_value_before_anything_is_made(
    field: str, value: Any, directory: Path, tmp_path: Path
) -> None:
    edit(directory / "config.json", lambda config: config.update({field: value}))
    with limited(seconds=5):
        message = refusal(directory, tmp_path / "pinned")
    assert message.startswith(f"config.json: {field} is ")
    assert (repr(value) if abs(float(value)) < 1e30 or isinstance(value, float) else "of about 40 digits") in message


def test_sizes_inside_a_sub_config_are_refused_with_their_path(directory: Path, tmp_path: Path) -> None:
    edit(directory / "config.json", lambda config: config.update(text_config={"num_hidden_layers": 10**9}))
    assert refusal(directory, tmp_path / "pinned").startswith(
        "config.json: text_config.num_hidden_layers is 1000000000"
    )


def test_a_model_much_larger_than_its_weights_is_refused_without_being_made(directory: Path, tmp_path: Path) -> None:
    edit(directory / "config.json", lambda config: config.update(intermediate_size=2**30))
    with limited(seconds=5):
        assert "describes a model of 309" in refusal(directory, tmp_path / "pinned")


@pytest.mark.parametrize("where", ["_attn_implementation", "attn_implementation", "_experts_implementation"])
def test_an_implementation_that_the_config_asks_for_is_never_fetched(
    where: str, directory: Path, tmp_path: Path
) -> None:
    """With the package `kernels` transformers would fetch this from the hub and run it; without it, it fails."""
    edit(directory / "config.json", lambda config: config.update({where: "org/kernel"}))
    pin_model(str(directory), tmp_path / "pinned")
    model = load_model(tmp_path / "pinned", numeric_class="float32", device=CPU)
    assert model.config._attn_implementation == "eager"
    ids = torch.tensor([tiny_tokenizer()("The old keeper painted.")["input_ids"]])
    torch.testing.assert_close(model(ids).logits, tiny_model("llama")(ids).logits)


@pytest.mark.parametrize("name", sorted({*SUPPORTED, *REFUSED} - {"qwen2"}))
def test_models_of_every_architecture_are_pinned(name: str, tmp_path: Path) -> None:
    """Also of those that are refused for their attention later, by name."""
    save_tiny_model(tmp_path / "source", name=name)
    assert pin_model(str(tmp_path / "source"), tmp_path / "pinned") == digests_of(tmp_path / "source")


# Words


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "tokenizer.json",
            lambda c: c.update(version="x"),
            "tokenizer.json cannot be used: Exception: Unknown tokenizer v",
        ),
        (
            "tokenizer_config.json",
            lambda c: c.update(tokenizer_class=3.5),
            "its tokenizer cannot be used (tokenizer.json, ",
        ),
        ("config.json", lambda c: c.update(vocab_size=3), "config.json: vocabulary mismatch, "),
        ("config.json", lambda c: c.update(model_type="x\x1b" * 900), r"architecture 'x\x1bx\x1b"),
    ],
)
def test_a_refusal_names_the_file_and_is_short_and_escaped(
    file: str, change: Callable[[Any], Any], message: str, directory: Path, tmp_path: Path
) -> None:
    edit(directory / file, change)
    said = refusal(directory, tmp_path / "pinned")
    assert message in said
    assert len(said) < 1_300
    assert "\x1b" not in said


def test_a_refusal_speaks_of_the_source_and_not_of_its_copy(directory: Path, tmp_path: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    assert str(tmp_path / "pinned") not in refusal(directory, tmp_path / "pinned")


def test_a_weight_files_name_cannot_act_on_what_shows_it(directory: Path, tmp_path: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model\x1b[2J.safetensors")
    assert refusal(directory, tmp_path / "pinned").startswith(r"model\x1b[2J.safetensors without")


@pytest.mark.parametrize(
    "source", ["~nobody-of-that-name/x", "x" * 300, "x" * 300 + ".gguf", "~nobody-of-that-name/x.gguf"]
)
def test_a_source_that_no_system_could_have_is_refused_with_its_name(source: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^selector '{source[:299]}"):
        pin_model(source, tmp_path / "pinned")


# GGUF files


@pytest.fixture(scope="module")
def whole_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_a_gguf_file_is_converted_whatever_lies_beside_it(whole_gguf: Path, tmp_path: Path) -> None:
    alone = pin_model(str(whole_gguf), tmp_path / "alone")
    (tmp_path / "source").mkdir()
    copy = Path(shutil.copy(whole_gguf, tmp_path / "source"))
    (copy.parent / "config.json").write_text('{"model_type": "exotic"}')
    (copy.parent / "tokenizer_config.json").write_text('{"bos_token": "x", "tokenizer_class": "Exotic"}')
    assert pin_model(str(copy), tmp_path / "beside") == alone


def test_a_gguf_array_longer_than_its_file_is_refused_at_once(whole_gguf: Path, tmp_path: Path) -> None:
    content = whole_gguf.read_bytes()
    name = b"tokenizer.ggml.tokens"
    at = content.index(name) + len(name) + 8  # past its own type and that of its values
    (tmp_path / "bad.gguf").write_bytes(content[:at] + struct.pack("<Q", 2**62) + content[at + 8 :])
    with limited(seconds=20):
        message = refusal(tmp_path / "bad.gguf", tmp_path / "pinned")
    assert re.match(r"it is not a whole GGUF file: ValueError: at byte [\d,]+: [\d,]+ values, of which", message)


@pytest.mark.parametrize(
    ("field", "value"), [("block_count", 2**31), ("attention.head_count", 2**31), ("embedding_length", 2**31)]
)
def test_a_gguf_file_with_absurd_sizes_is_refused_with_field_and_value(
    field: str, value: int, whole_gguf: Path, tmp_path: Path
) -> None:
    content = whole_gguf.read_bytes()
    at = content.index(f"llama.{field}".encode()) + len(f"llama.{field}") + 4
    (tmp_path / "bad.gguf").write_bytes(content[:at] + struct.pack("<I", value) + content[at + 4 :])
    with limited(seconds=5):
        message = refusal(tmp_path / "bad.gguf", tmp_path / "pinned")
    assert message.startswith(f"llama.{field} is {value}, more than ")
