import json
import shutil
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.selector.model_directory import INDEX, digests_of_files, file_digests, model_files

pytest_plugins = ["attninf_assets_tests.support.fixtures_models"]

names = st.sampled_from(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "merges.txt"])
files = st.dictionaries(names, st.sampled_from(["a" * 64, "b" * 64, "c" * 64]), min_size=3)


def test_an_index_beside_a_single_file_is_read_by_nobody_and_belongs_to_no_model(
    tiny_directory: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_directory, tmp_path / "copy"))
    (copy / INDEX).write_text("not even JSON")
    assert file_digests(copy) == file_digests(tiny_directory)
    assert INDEX not in {file.name for file in model_files(copy)}


@given(one=files, other=files)
def test_models_are_told_apart_by_every_file_and_their_tokenizers_by_the_tokenizers_files(
    one: dict[str, str], other: dict[str, str]
) -> None:
    a, b = digests_of_files(one), digests_of_files(other)
    assert (a.model == b.model) == (one == other)
    of_tokenizers = [
        {n: s for n, s in f.items() if n not in ("config.json", "model.safetensors")} for f in (one, other)
    ]
    assert (a.tokenizer == b.tokenizer) == (of_tokenizers[0] == of_tokenizers[1])
    assert digests_of_files(dict(reversed(one.items()))) == a


def test_the_digests_stand_still_between_releases() -> None:
    """Every pin, selector and score is named by these."""
    sha256_of = json.loads('{"config.json": "c", "model.safetensors": "m", "tokenizer.json": "t"}')
    found = digests_of_files(sha256_of)
    assert found.model == "b4d42c0e76b3654675bf1556be74aebb8c8e1cc854b619fbda5bf0c1b6509d2a"
    assert found.tokenizer == "f5e325bc048bcdadcfc8a89a9885660c57f7aba6cc0a42496b440abede29985b"
