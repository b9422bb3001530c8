import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from attninf_assets.selector import building, model_files, verified_pins
from attninf_assets.selector.building import pin_selector_model
from attninf_assets.selector.model_files import _install, is_intact, local_directory, pinned_files, publish_directory
from attninf_assets.selector.pinning import digest_model
from attninf_assets.store.root import Root
from attninf_assets.store.scratch import UNFINISHED
from attninf_assets_tests.support.pins import digests_of

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]


def flip_a_bit(root: Root, relative: str, *, at: int = -5) -> None:
    content = bytearray(root.read_bytes(relative))
    content[at] ^= 1
    root.write_bytes(relative, bytes(content))


@pytest.fixture
def pin(root: Root, tiny_directory: Path) -> str:
    """A tiny model pinned under the root, and where."""
    return pin_selector_model(root, str(tiny_directory)).directory


def test_a_pinned_model_comes_as_it_was_pinned(root: Root, pin: str, tiny_directory: Path, tmp_path: Path) -> None:
    directory = local_directory(root, pin, cache=tmp_path / "cache")
    assert digest_model(directory) == digests_of(tiny_directory)
    assert {f.name for f in directory.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_what_is_not_there_is_refused_by_its_place(root: Root, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{root.uri}/selectors/absent: no pinned model there"):
        local_directory(root, "selectors/absent", cache=tmp_path / "cache")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_flipped_bit_is_refused_with_the_file_and_both_digests_and_repaired_by_pinning_again(
    root: Root, pin: str, file: str, tiny_directory: Path, tmp_path: Path
) -> None:
    pinned = pinned_files(root, pin)
    assert pinned is not None
    flip_a_bit(root, f"{pin}/{file}")
    assert not is_intact(root, pin)
    with pytest.raises(ValueError, match=f"{root.uri}/{pin}/{file}: not what was pinned: sha256 is ") as caught:
        local_directory(root, pin, cache=tmp_path / "cache")
    assert pinned[file] in str(caught.value)
    assert "materialize selector_model again" in str(caught.value)
    pin_selector_model(root, str(tiny_directory))
    assert is_intact(root, pin)
    assert digest_model(local_directory(root, pin, cache=tmp_path / "cache")) == digests_of(tiny_directory)


def test_a_file_that_is_gone_or_was_added_is_refused_and_put_right(
    root: Root, pin: str, tiny_directory: Path, tmp_path: Path
) -> None:
    root.delete(f"{pin}/tokenizer.json")
    with pytest.raises(ValueError, match=r"/tokenizer\.json: not what was pinned: sha256 is no such file"):
        local_directory(root, pin, cache=tmp_path / "cache")
    pin_selector_model(root, str(tiny_directory))
    root.write_bytes(f"{pin}/added_tokens.json", b'{"x": 3}')
    with pytest.raises(ValueError, match=r"/added_tokens\.json: not what was pinned: .* pinned was no such file"):
        local_directory(root, pin, cache=tmp_path / "another_cache")
    pin_selector_model(root, str(tiny_directory))
    directory = local_directory(root, pin, cache=tmp_path / "cache")
    assert digest_model(directory) == digests_of(tiny_directory)


def test_a_pin_of_an_earlier_release_says_what_to_do_and_pinning_again_does_it(
    root: Root, pin: str, tiny_directory: Path, tmp_path: Path
) -> None:
    """Its directory has another name than the same model gets now, and its list of files names no form."""
    earlier = "selectors/" + "e" * 64
    for path in root.list(pin):
        root.write_bytes(path.replace(pin, earlier), root.read_bytes(path))
    root.write_bytes(f"selectors/files/{'e' * 64}.json", json.dumps(pinned_files(root, pin)).encode())
    with pytest.raises(
        ValueError,
        match=f"{earlier}: pinned by an earlier release, .* materialize selector_model, retrieval_probes and retri",
    ):
        local_directory(root, earlier, cache=tmp_path / "cache")
    assert not is_intact(root, earlier), "so a GGUF file is converted anew"
    assert pin_selector_model(root, str(tiny_directory)).directory == pin
    root.delete(f"selectors/files/{'e' * 64}.json")  # the first release kept no list at all
    with pytest.raises(ValueError, match=r"a model pinned before 0\.2\.0 gets a new digest by that"):
        local_directory(root, earlier, cache=tmp_path / "cache")


@pytest.mark.parametrize("list_is", ["gone", "damaged"])
def test_a_pin_without_a_list_of_files_is_verified_by_its_digest(
    root: Root, pin: str, list_is: str, tmp_path: Path
) -> None:
    digest = pin.removeprefix("selectors/")
    if list_is == "gone":
        root.delete(f"selectors/files/{digest}.json")
    else:
        root.write_bytes(f"selectors/files/{digest}.json", b"{")
    local_directory(root, pin, cache=tmp_path / "cache")
    flip_a_bit(root, f"{pin}/tokenizer.json")
    with pytest.raises(ValueError, match=f"{pin}: not the model .*: its digest is [0-9a-f]{{64}}, pinned was {digest}"):
        local_directory(root, pin, cache=tmp_path / "another_cache")


def test_an_intact_pin_is_read_once_on_a_machine_and_again_when_a_file_changes(
    pin: str, root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    digests = verified_pins.file_digests

    def counted(directory: Path) -> dict[str, str]:
        read.append(directory)
        return digests(directory)

    monkeypatch.setattr(verified_pins, "file_digests", counted)
    directory = local_directory(root, pin, cache=tmp_path / "cache")
    assert len(read) == 1
    for _ in range(3):
        local_directory(root, pin, cache=tmp_path / "cache")
    assert len(read) == 1
    before = (directory / "tokenizer.json").stat()
    (directory / "tokenizer.json").write_bytes((directory / "tokenizer.json").read_bytes())
    os.utime(directory / "tokenizer.json", ns=(before.st_atime_ns, before.st_mtime_ns))  # as if it were untouched
    local_directory(root, pin, cache=tmp_path / "cache")
    assert len(read) == 2
    assert not any(path.name == "verified" for path in directory.iterdir()), "nothing is written beside the model"


def test_a_memory_that_cannot_be_kept_costs_time_and_nothing_else(
    s3_root: Root, tiny_directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pin = pin_selector_model(s3_root, str(tiny_directory)).directory
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "verified").write_text("in the way")
    local_directory(s3_root, pin, cache=tmp_path / "cache")
    assert "cannot be written, so the pinned model is read again next time" in caplog.text


def test_a_damaged_copy_of_a_model_on_s3_is_made_again(s3_root: Root, tiny_directory: Path, tmp_path: Path) -> None:
    pin = pin_selector_model(s3_root, str(tiny_directory)).directory
    copy = local_directory(s3_root, pin, cache=tmp_path)
    for damage in ("flip", "gone", "swap", "added"):
        file = copy / "tokenizer.json"
        if damage == "flip":
            content = bytearray(file.read_bytes())
            content[100] ^= 1
            file.write_bytes(content)
        elif damage == "gone":
            (copy / "config.json").unlink()
        elif damage == "swap":
            shutil.copyfile(copy / "tokenizer_config.json", file)
        else:
            (copy / "vocab.json").write_text("{}")
        assert local_directory(s3_root, pin, cache=tmp_path) == copy
        assert digest_model(copy) == digests_of(tiny_directory)


# Takes (uri, options, relative, cache, own name, other's name); fetches, waits for the other to have fetched, installs.
_FILL = """
import json, sys, time
from pathlib import Path
from attninf_assets.selector import model_files
from attninf_assets.store.root import Root
from attninf_assets.store.scratch import UNFINISHED
uri, options, relative, cache, own, other = sys.argv[1:]
copy_files = model_files.pafs.copy_files
def and_wait(*args, **kwargs):
    copy_files(*args, **kwargs)
    Path(own).touch()
    deadline = time.monotonic() + 60
    while not Path(other).exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
model_files.pafs.copy_files = and_wait
print(model_files.local_directory(Root.at(uri, json.loads(options)), relative, cache=Path(cache)))
"""


def test_two_processes_that_fill_the_cache_at_once_both_have_the_model(
    s3_root: Root, tiny_directory: Path, tmp_path: Path
) -> None:
    pin = pin_selector_model(s3_root, str(tiny_directory)).directory
    places = [str(tmp_path / "one"), str(tmp_path / "two")]
    fixed = [s3_root.uri, json.dumps(dict(s3_root.storage_options)), pin, str(tmp_path / "cache")]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _FILL, *fixed, *names], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for names in (places, places[::-1])
    ]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert digest_model(Path(out.strip())) == digests_of(tiny_directory)
    assert [path.name for path in (tmp_path / "cache" / "selectors").iterdir()] == [pin.removeprefix("selectors/")]


def test_what_pinning_and_fetching_need_for_the_moment_lies_where_it_is_swept_after_a_kill(
    s3_root: Root, tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Path] = []

    def publish(root: Root, local: Path, relative: str) -> None:
        used.append(local.parent)
        publish_directory(root, local, relative)

    def install(copy: Path, target: Path) -> None:
        used.append(copy)
        _install(copy, target)

    monkeypatch.setattr(building, "publish_directory", publish)
    monkeypatch.setattr(model_files, "_install", install)
    pin = pin_selector_model(s3_root, str(tiny_directory)).directory
    local_directory(s3_root, pin, cache=tmp_path / "cache")
    assert used[0].name.startswith(f"attninf-pin-{socket.gethostname()}-")
    assert used[1].name.startswith(f"{UNFINISHED}{socket.gethostname()}-")
    assert os.listdir(used[1].parent) == [pin.removeprefix("selectors/")]
