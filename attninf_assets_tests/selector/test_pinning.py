import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from attninf_assets.influence.model.pretrained import load_model
from attninf_assets.influence.model.text_tokenizer import TextTokenizer, load_tokenizer
from attninf_assets.selector.model_directory import file_digests
from attninf_assets.selector.pinning import digest_model, pin_model
from attninf_assets_tests.support.hub import hub_of
from attninf_assets_tests.support.pins import digests_of
from attninf_assets_tests.support.tiny_gguf import tiny_gguf
from attninf_assets_tests.support.tiny_models import SUPPORTED, save_tiny_model, tiny_model
from attninf_assets_tests.support.tiny_tokenizers import KINDS, tokenizer_of_kind
from benchmarks.rigs.made_up_text import VOCAB, tiny_text_tokenizer, tiny_tokenizer

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

CPU = torch.device("cpu")


@pytest.fixture
def directory(tiny_directory: Path, tmp_path: Path) -> Path:
    """A model directory to spoil."""
    return Path(shutil.copytree(tiny_directory, tmp_path / "source"))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_pinned_directory_loads_as_the_same_model_and_tokenizer(tiny_directory: Path, tmp_path: Path) -> None:
    pin_model(str(tiny_directory), tmp_path / "pinned")
    ids = torch.tensor([tiny_tokenizer()("The old keeper painted.")["input_ids"]])
    model = load_model(tmp_path / "pinned", numeric_class="float32", device=CPU)
    torch.testing.assert_close(model(ids).logits, tiny_model("llama")(ids).logits)
    assert not model.training
    assert load_tokenizer(tmp_path / "pinned").encode("The old keeper.") == tiny_text_tokenizer().encode(
        "The old keeper."
    )


def test_only_what_a_model_needs_is_pinned(directory: Path, tmp_path: Path) -> None:
    for name in ("README.md", "pytorch_model.bin", "modeling_exotic.py", "optimizer.pt"):
        (directory / name).write_text("not needed")
    pin_model(str(directory), tmp_path / "pinned")
    assert {path.name for path in (tmp_path / "pinned").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip


def test_sharded_weights_are_pinned_as_one_file(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "source", max_shard_size="60KB")
    tiny_tokenizer().save_pretrained(tmp_path / "source")
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 1
    pin_model(str(tmp_path / "source"), tmp_path / "pinned")
    assert [file.name for file in (tmp_path / "pinned").glob("model*")] == ["model.safetensors"]
    loaded = load_model(tmp_path / "pinned", numeric_class="float32", device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


# Refusals


@pytest.mark.parametrize(
    "source",
    ["/nowhere/at/all", "org/name", "org/name@", "org/name@one@two", "@main", "org/name/more@main", "./name@main"],
)
def test_a_source_of_no_known_kind_is_refused_with_its_name(source: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is neither a directory, nor a \.gguf file, nor a hub id") as caught:
        pin_model(source, tmp_path / "pinned")
    assert repr(source) in str(caught.value)


def test_a_gguf_file_that_does_not_exist_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.gguf': no such GGUF file"):
        pin_model(str(tmp_path / "absent.gguf"), tmp_path / "pinned")


def test_a_directory_without_a_config_is_refused(directory: Path, tmp_path: Path) -> None:
    (directory / "config.json").unlink()
    with pytest.raises(ValueError, match=f"{directory}: no config.json"):
        pin_model(str(directory), tmp_path / "pinned")


def test_a_directory_without_weights_is_refused(directory: Path, tmp_path: Path) -> None:
    (directory / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=f"{directory}: no model\\*.safetensors weights in it$"):
        pin_model(str(directory), tmp_path / "pinned")


@pytest.mark.parametrize("n_bytes", [0, 4, 100, -1])
def test_weights_that_are_truncated_are_refused_and_named(n_bytes: int, directory: Path, tmp_path: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match=f"selector {directory}: model.safetensors is not a whole safetensors file"):
        pin_model(str(directory), tmp_path / "pinned")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_weights_that_are_only_pickles_are_refused_and_named(name: str, directory: Path, tmp_path: Path) -> None:
    (directory / "model.safetensors").rename(directory / name)
    with pytest.raises(ValueError, match=f"no model\\*.safetensors .*; {name} are pickles, which are never loaded"):
        pin_model(str(directory), tmp_path / "pinned")


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("config.json", {"model_type": "exotic"}, "does not know architecture 'exotic'$"),
        (
            "config.json",
            {"model_type": "exotic", "auto_map": {"AutoConfig": "exotic.Config", "AutoModelForCausalLM": "exotic.LM"}},
            "architecture 'exotic' \\(it wants code of its own, which is never run\\)",
        ),
        (
            "config.json",
            {"vocab_size": VOCAB - 1},
            f"largest token id is {VOCAB - 1} but the model embeds {VOCAB - 1} tokens",
        ),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Exotic", "auto_map": {"AutoTokenizer": ["exotic.Exotic", None]}},
            "its tokenizer cannot be used .*custom code",
        ),
    ],
)
def test_models_that_cannot_be_used_are_refused_with_the_reason(
    file: str, fields: dict[str, Any], message: str, directory: Path, tmp_path: Path
) -> None:
    edit(directory / file, lambda content: content.update(fields))
    ran = tmp_path / "ran"
    (directory / "exotic.py").write_text(f"open({str(ran)!r}, 'w')")
    with pytest.raises(ValueError, match=message) as caught:
        pin_model(str(directory), tmp_path / "pinned")
    assert f"selector {directory}: " in str(caught.value)
    assert not ran.exists(), "code that came with the model was run"


def test_code_that_comes_with_a_tokenizer_is_refused_without_asking(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = directory / "ran"
    (directory / "exotic.py").write_text(f"open({str(ran)!r}, 'w')\nclass Exotic: pass\n")
    fields = {"tokenizer_class": "Exotic", "auto_map": {"AutoTokenizer": ["exotic.Exotic", None]}}
    edit(directory / "tokenizer_config.json", lambda content: content.update(fields))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ValueError, match="custom code"):
        pin_model(str(directory), tmp_path / "pinned")
    assert not ran.exists()


def test_a_config_that_is_not_json_is_refused(directory: Path, tmp_path: Path) -> None:
    (directory / "config.json").write_text('{"model_type": ')
    with pytest.raises(ValueError, match=f"selector {directory}: config.json is not JSON"):
        pin_model(str(directory), tmp_path / "pinned")


def test_weights_that_lack_a_parameter_are_refused_rather_than_made_up(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    del weights["model.layers.1.self_attn.k_proj.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 of the model's parameters are not .* model\.layers\.1\.self_attn\.k_proj"):
        load_model(directory, numeric_class="float32", device=CPU)


# One digest everywhere


PIN = (
    "import sys; from pathlib import Path; from attninf_assets.selector.pinning import pin_model; "
    "found = [pin_model(source, Path(sys.argv[1]) / str(number)) for number, source in enumerate(sys.argv[2:])]; "
    "print(*(f'{one.model}.{one.tokenizer}' for one in found))"
)


def test_the_same_model_is_pinned_under_one_digest_whatever_the_environment(
    tiny_directory: Path, tmp_path: Path
) -> None:
    """Processes of their own: transformers and huggingface_hub read their settings when they are imported."""
    gguf = tiny_gguf(tmp_path / "tiny.gguf")
    elsewhere = Path(shutil.copytree(tiny_directory, tmp_path / "another name"))
    (tmp_path / "cwd").mkdir()
    environments: list[tuple[dict[str, str], Path, list[str]]] = [
        ({"HF_HUB_OFFLINE": "0", "PYTHONHASHSEED": "1"}, Path.cwd(), [str(tiny_directory), str(gguf)]),
        (
            {
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_OFFLINE": "1",
                "PYTHONHASHSEED": "2",
                "HF_HOME": str(tmp_path / "hf"),
            },
            tmp_path / "cwd",
            [f"../{elsewhere.name}", "../tiny.gguf"],
        ),
    ]
    running = []
    for number, (settings, cwd, sources) in enumerate(environments):
        (tmp_path / str(number)).mkdir()
        environment = os.environ | settings | {"PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", PIN, str(tmp_path / str(number)), *sources]
        running.append(subprocess.Popen(command, env=environment, cwd=cwd, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=120)[0].strip() for process in running]
    assert said[0] == said[1]
    assert len(said[0].split()) == 2
    for number in range(2):
        one, other = (file_digests(tmp_path / str(environment) / str(number)) for environment in (0, 1))
        assert one == other
    assert said[0].split()[0].partition(".")[0] == digests_of(tiny_directory).model


def test_digests_do_not_depend_on_what_libraries_write_beside_the_model(tiny_directory: Path, tmp_path: Path) -> None:
    before = digests_of(tiny_directory)
    plain = AutoTokenizer.from_pretrained(tiny_directory)
    plain.save_pretrained(tmp_path / "saved again")
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "saved again", max_shard_size="60KB")
    directory = tmp_path / "saved again"
    assert len(list(directory.glob("model-*.safetensors"))) > 1
    edit(
        directory / "config.json",
        lambda c: c.update(
            transformers_version="9.9", _name_or_path="elsewhere", torch_dtype="float16", unsloth_version="1",
            use_cache=False, is_local=True,
        ),
    )  # fmt: skip
    edit(
        directory / "tokenizer_config.json",
        lambda c: c.update(
            local_files_only=True, name_or_path="x", chat_template="{{ messages }}", model_max_length=7, is_local=False,
            padding_side="left", added_by="another library", add_bos_token=True,
        ),
    )  # fmt: skip
    edit(
        directory / "tokenizer.json",
        lambda c: c.update(
            truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        ),
    )
    (directory / "README.md").write_text("A model.")
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    (directory / "generation_config.json").write_text('{"temperature": 0.5}')
    assert digests_of(directory) == before
    content = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(dict(reversed(content.items())), indent=7))
    assert digests_of(directory) == before
    assert pin_model(str(directory), tmp_path / "pinned") == before
    assert digests_of(tmp_path / "pinned") == before, "what is pinned is in the form it would be pinned in"
    assert digest_model(tmp_path / "pinned") == before


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", lambda c: c.update(rms_norm_eps=1e-3)),
        ("config.json", lambda c: c.update(rope_parameters={"rope_type": "default", "rope_theta": 500.0})),
        ("config.json", lambda c: c.update(of_a_later_release=True)),
    ],
)
def test_another_config_is_another_model_with_the_same_tokenizer(
    file: str, change: Callable[[dict[str, Any]], Any], tiny_directory: Path, directory: Path
) -> None:
    before = digests_of(tiny_directory)
    edit(directory / file, change)
    found = digests_of(directory)
    assert found.model != before.model
    assert found.tokenizer == before.tokenizer


def added(content: dict[str, Any], id_: int, *, special: bool) -> dict[str, Any]:
    """A piece of the vocabulary, made an added token."""
    (piece,) = (piece for piece, number in content["model"]["vocab"].items() if number == id_)
    return content["added_tokens"][0] | {"id": id_, "content": piece, "special": special}


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("tokenizer.json", lambda c: c["model"]["merges"].pop()),
        ("tokenizer.json", lambda c: c["model"]["merges"].insert(0, c["model"]["merges"].pop(1))),
        (
            "tokenizer.json",
            lambda c: c["model"]["vocab"].update(a=c["model"]["vocab"]["b"], b=c["model"]["vocab"]["a"]),
        ),
        ("tokenizer.json", lambda c: c.update(normalizer={"type": "NFKC"})),
        ("tokenizer.json", lambda c: c["pre_tokenizer"].update(add_prefix_space=True)),
        ("tokenizer.json", lambda c: c["added_tokens"].append(added(c, 300, special=True))),
        ("tokenizer.json", lambda c: c["added_tokens"].append(added(c, 300, special=False))),
        ("tokenizer_config.json", lambda c: c.update(bos_token="</s>")),
        ("tokenizer_config.json", lambda c: c.pop("bos_token")),
    ],
)
def test_another_tokenizer_is_another_model(
    file: str, change: Callable[[dict[str, Any]], Any], tiny_directory: Path, directory: Path
) -> None:
    before = digests_of(tiny_directory)
    edit(directory / file, change)
    found = digests_of(directory)
    assert found.tokenizer != before.tokenizer
    assert found.model != before.model


def test_another_bit_in_any_tensor_is_another_model_with_the_same_tokenizer(directory: Path) -> None:
    before = digests_of(directory)
    weights = load_file(directory / "model.safetensors")
    for name in ("model.norm.weight", "model.layers.2.self_attn.v_proj.weight"):
        changed = {n: w.clone() for n, w in weights.items()}
        changed[name].view(torch.uint8).view(-1)[-4] ^= 1
        save_file(changed, directory / "model.safetensors", metadata={"format": "pt"})
        found = digests_of(directory)
        assert found.model != before.model
        assert found.tokenizer == before.tokenizer


@pytest.mark.parametrize("name", sorted({*SUPPORTED} - {"qwen2"}))
def test_a_pinned_config_makes_the_same_model_as_the_one_it_was_made_from(name: str, tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "source", name=name)
    pin_model(str(tmp_path / "source"), tmp_path / "pinned")
    ids = torch.tensor([tiny_text_tokenizer().encode("The old keeper painted seven maps.")])
    source, pinned = (load_model(tmp_path / d, numeric_class="float32", device=CPU) for d in ("source", "pinned"))
    with torch.inference_mode():
        torch.testing.assert_close(pinned(ids).logits, source(ids).logits, rtol=0, atol=0)


# Tokenizers


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_of_every_kind_are_pinned_as_what_texts_meet(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of_kind(kind)
    directory = model_with(tokenizer, tmp_path / "source")
    digests = pin_model(str(directory), tmp_path / "pinned")
    pinned, expected = load_tokenizer(tmp_path / "pinned"), TextTokenizer.of(tokenizer)
    for text in ("a<s>b</s> the old keeper<|im_start|>\n", "é <think> [INST]", "<unk>"):
        assert pinned.encode(text) == expected.encode(text)
    assert digests_of(tmp_path / "pinned") == digests


def test_a_tokenizer_that_cannot_split_special_tokens_is_refused_with_its_file_and_the_token(tmp_path: Path) -> None:
    backend = Tokenizer(models.WordLevel({"<s>": 0, "a": 1, "[U]": 2}, unk_token="[U]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="[U]")
    directory = model_with(tokenizer, tmp_path / "source")
    with pytest.raises(
        ValueError,
        match=rf"^selector {directory}: tokenizer\.json, a \w+, cannot split special tokens: a text that holds "
        "'<s>' is given token 0",
    ):
        pin_model(str(directory), tmp_path / "pinned")


def model_with(tokenizer: Any, directory: Path) -> Path:
    """A model directory with another tokenizer."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=2, n_positions=32))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


# Other sources


def test_a_hub_model_is_downloaded_at_its_revision_and_pinned(
    directory: Path, tiny_directory: Path, tmp_path: Path
) -> None:
    """In a process of its own: huggingface_hub reads its endpoint once, when it is imported."""
    (directory / "pytorch_model.bin").write_text("a pickle")
    (directory / "README.md").write_text("A model.")
    program = (
        "import sys; from pathlib import Path; from attninf_assets.selector.pinning import pin_model; "
        "print(pin_model('org/tiny@v1.0', Path(sys.argv[1])).model)"
    )
    with hub_of(directory, repo="org/tiny", revision="v1.0") as (endpoint, asked):
        environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "pinned")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digests_of(tiny_directory).model
    assert digest_model(tmp_path / "pinned") == digests_of(tiny_directory)
    assert "model.safetensors" in asked
    assert not {"pytorch_model.bin", "README.md"} & set(asked), "only what is needed is downloaded"


@pytest.mark.sample
def test_a_gguf_file_becomes_a_plain_directory_that_speaks_english(sample_directory: Path, sample_model: Any) -> None:
    names = {path.name for path in sample_directory.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    ids = torch.tensor(
        [load_tokenizer(sample_directory).encode("The capital of France is Paris. The capital of Germany is")]
    )
    with torch.inference_mode():
        sample_model.set_attn_implementation("sdpa")
        assert (
            sample_model(ids).logits[0, -1].argmax().tolist() == load_tokenizer(sample_directory).encode(" Berlin")[0]
        )


def test_a_second_copy_of_the_weights_is_neither_copied_nor_digested(tiny_directory: Path, tmp_path: Path) -> None:
    """Some repositories carry their weights twice, once under a name that transformers does not load."""
    shutil.copytree(tiny_directory, tmp_path / "twice")
    shutil.copy(tiny_directory / "model.safetensors", tmp_path / "twice" / "consolidated.safetensors")
    assert pin_model(str(tmp_path / "twice"), tmp_path / "pinned") == digests_of(tiny_directory)
    assert not (tmp_path / "pinned" / "consolidated.safetensors").exists()
