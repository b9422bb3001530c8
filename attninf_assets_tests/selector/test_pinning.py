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

from attninf_assets.influence.model.pretrained import load_model
from attninf_assets.influence.model.text_tokenizer import load_tokenizer
from attninf_assets.selector.pinning import digest_model, pin_model
from attninf_assets_tests.support.hub import hub_of
from attninf_assets_tests.support.pins import digests_of
from attninf_assets_tests.support.tiny_models import tiny_model
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
    assert load_tokenizer(tmp_path / "pinned").encode("The old keeper.") == tiny_text_tokenizer().encode("The old keeper.")


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
            "its tokenizer cannot be used: .*custom code",
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
    ids = torch.tensor([load_tokenizer(sample_directory).encode("The capital of France is Paris. The capital of Germany is")])
    with torch.inference_mode():
        sample_model.set_attn_implementation("sdpa")
        assert sample_model(ids).logits[0, -1].argmax().tolist() == load_tokenizer(sample_directory).encode(" Berlin")[0]


def test_a_second_copy_of_the_weights_is_neither_copied_nor_digested(tiny_directory: Path, tmp_path: Path) -> None:
    """Some repositories carry their weights twice, once under a name that transformers does not load."""
    shutil.copytree(tiny_directory, tmp_path / "twice")
    shutil.copy(tiny_directory / "model.safetensors", tmp_path / "twice" / "consolidated.safetensors")
    assert pin_model(str(tmp_path / "twice"), tmp_path / "pinned") == digests_of(tiny_directory)
    assert not (tmp_path / "pinned" / "consolidated.safetensors").exists()
