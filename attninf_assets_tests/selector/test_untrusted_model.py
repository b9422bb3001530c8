import json
import os
import random
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
from attninf_assets.influence.model.text_tokenizer import load_tokenizer
from attninf_assets.selector.model_directory import INDEX
from attninf_assets.selector.model_source import ModelDigests
from attninf_assets.selector.pinning import digest_model, pin_model
from attninf_assets_tests.support.pins import digests_of
from attninf_assets_tests.support.tiny_gguf import tiny_gguf
from attninf_assets_tests.support.tiny_models import REFUSED, SUPPORTED, save_tiny_model, tiny_model
from benchmarks.rigs.made_up_text import tiny_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

CPU = torch.device("cpu")
N_FUZZED = 60  # directories, and half as many GGUF files; some 40 ms each
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


# Whatever comes


JUNK: list[Any] = [
    None, True, -1, 0, 3.5, 1e308, float("nan"), 10**9, 10**19, 10**400, "", "x", "\ud800", [], [[]], {}, {"a": [1]},
    "../../etc/passwd", ["full_attention"] * 9,
]  # fmt: skip


def spoiled_json(file: Path, draw: random.Random) -> None:
    """One value, anywhere, is another or gone."""
    content = json.loads(file.read_text())
    at, parent = content, None
    while isinstance(at, dict | list) and at and (parent is None or draw.random() < 0.7):
        parent = at
        key = draw.choice(list(at)) if isinstance(at, dict) else draw.randrange(len(at))
        at = at[key]
    if parent is not None:
        if draw.random() < 0.15:
            del parent[key]
        else:
            parent[key] = draw.choice(JUNK)
    file.write_text(json.dumps(content))


def spoil_bytes(file: Path, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(draw.choice([1, 1, 8])):
        head = min(len(content), draw.choice([16, 400, len(content)]))
        content[draw.randrange(head)] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def spoil(directory: Path, draw: random.Random) -> str:
    """Spoil one file of the model; returns what was done."""
    file = draw.choice(sorted(directory.iterdir()))
    way = draw.choice(["cut", "empty", "bytes", "bytes", "json", "json", "json", "nested", "huge", "binary", "other"])
    if way == "cut":
        file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size)])
    elif way == "empty":
        file.write_bytes(b"")
    elif way == "bytes":
        spoil_bytes(file, draw)
    elif way == "json" and file.suffix == ".json":
        spoiled_json(file, draw)
    elif way == "nested":
        file.write_text('{"a":' * 100_000)
    elif way == "huge":
        file.write_text('{"vocab_size": ' + "9" * 10_000 + "}")
    elif way == "binary":
        file.write_bytes(draw.randbytes(999))
    else:
        shutil.copyfile(draw.choice(sorted(directory.iterdir())), directory / "merges.txt")
        way = "other"
    return f"{way} {file.name}"


@pytest.mark.parametrize("seed", range(N_FUZZED))
def test_a_spoiled_directory_is_refused_by_name_or_pinned_and_loaded(
    seed: int, directory: Path, tmp_path: Path
) -> None:
    done = spoil(directory, random.Random(seed))
    with limited(seconds=20):
        refused, digests = pinned_or_refused(directory, tmp_path / "pinned")
        if refused is None:
            assert digests == digest_model(tmp_path / "pinned"), done
            model = load_model(tmp_path / "pinned", numeric_class="float32", device=CPU)
            model(torch.tensor([load_tokenizer(tmp_path / "pinned").encode("The old keeper.")]))
        else:
            assert refused.startswith(f"selector {directory}: "), (done, refused)
            reason = refused.removeprefix(f"selector {directory}: ")
            assert re.search(r"\.json|\.safetensors|\.txt|tokenizer|weight files", reason), (done, refused)


def pinned_or_refused(source: Path, destination: Path) -> tuple[str | None, ModelDigests | None]:
    """The words of a `ValueError`, or the digests of what was pinned; no other error is expected."""
    try:
        return None, pin_model(str(source), destination)
    except ValueError as error:
        return str(error), None


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


@pytest.mark.parametrize("seed", range(N_FUZZED // 2))
def test_a_spoiled_gguf_file_is_refused_by_name_or_converted_and_loaded(
    seed: int, whole_gguf: Path, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    file = Path(shutil.copy(whole_gguf, tmp_path / "bad.gguf"))
    if draw.random() < 0.3:
        file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size)])
    else:
        spoil_bytes(file, draw)
    with limited(seconds=20):
        refused, digests = pinned_or_refused(file, tmp_path / "pinned")
        if refused is None:
            assert digests == digest_model(tmp_path / "pinned")
            load_model(tmp_path / "pinned", numeric_class="float32", device=CPU)
        else:
            assert refused.startswith(f"selector {file}: "), refused
