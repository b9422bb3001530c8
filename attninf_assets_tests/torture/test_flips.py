"""A little of `flips`: every kind of file has a bit flipped, and comes back."""

from collections.abc import Iterator

import pytest

from attninf_assets_tests.torture.attempts import Attempt
from attninf_assets_tests.torture.flips import Material, flipped, material


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with material(tmp_path_factory.mktemp("flips")) as of:
        yield of


def test_the_root_has_everything_in_it(of: Material) -> None:
    for part in (
        "/_delta_log/00000000000000000000.json",
        "/_delta_log/_last_checkpoint",
        ".checkpoint.parquet",
        "/shard=a/",
        "selectors/model.json",
        "selectors/current.json",
        "selectors/detections/",
        "selectors/files/",
        "previews/",
        "staging/",
        "training_corpus/manifest.json",
        "training_corpus/part-",
        "checksums/scores.json",
        "checksums/scores/",
    ):
        assert any(part in file for file in of.files), part


@pytest.mark.parametrize("number", range(5))
def test_a_flipped_bit_is_noticed_and_what_it_harmed_comes_back(of: Material, number: int) -> None:
    outcome = flipped(of, Attempt(0, number))
    assert outcome.wrong == "", outcome
