"""A shard's name stands on its own: valid, and never shared."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attninf_assets.corpus.config import FORMATS
from attninf_assets.corpus.documents import shard_name

_relative_paths = st.text(min_size=1, max_size=300).filter(lambda path: "\0" not in path)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("part-0.parquet", "part-0"),
        ("part-0", "part-0"),
        ("2024/Part 0.parquet", "2024-part-0-103918c0"),
        ("日本.parquet", "shard-c42d01b2"),
    ],
)
def test_a_name_is_the_path_itself_or_a_slug_with_its_hash(path: str, name: str) -> None:
    assert shard_name(path, format="parquet") == name


@given(path=_relative_paths, format=st.sampled_from(FORMATS))
@example(path="A" * 1000, format="parquet")
@example(path="a" * 1000, format="parquet")
def test_a_shards_name_is_always_valid(path: str, format: str) -> None:
    name = shard_name(path, format=format)
    assert re.fullmatch("[a-z0-9_-]{1,200}", name)


@given(
    paths=st.sets(st.text("aA/ .-_é", min_size=1, max_size=6), min_size=2, max_size=40),
    format=st.sampled_from(FORMATS),
)
def test_files_of_one_format_never_share_a_shards_name(paths: set[str], format: str) -> None:
    names = [shard_name(f"{path}.{format}", format=format) for path in paths]
    assert len(set(names)) == len(paths)
