"""A few kills of everything that writes under a root; `python -m attninf_assets_tests.torture.kills` does thousands."""

from collections.abc import Iterator

import pytest

from attninf_assets_tests.torture.attempts import Attempt
from attninf_assets_tests.torture.killing import Hunt, outcomes
from attninf_assets_tests.torture.kills import hunt_on
from attninf_assets_tests.torture.victims import VICTIMS

SEED = 12


@pytest.fixture(scope="module")
def hunts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Hunt]]:
    """Kills on local disk, and on S3."""
    directory = tmp_path_factory.mktemp("kills")
    with hunt_on("local", directory / "local") as local, hunt_on("s3", directory / "s3") as s3:
        yield {"local": local, "s3": s3}


@pytest.mark.parametrize("victim", VICTIMS)
def test_whatever_is_killed_is_whole_and_run_again_leaves_what_an_undisturbed_run_does(
    hunts: dict[str, Hunt], victim: str
) -> None:
    kinds = VICTIMS[victim].roots
    number = list(VICTIMS).index(victim)
    kind = kinds[-1 if number % 4 == 0 else 0]  # every fourth on S3: the tool does all of them on both
    [outcome] = outcomes([(hunts[kind], Attempt(SEED, number), victim)])
    assert not outcome.wrong
