from pathlib import Path

import pytest

from attninf_assets.store.root import Root
from attninf_assets_tests.support.power_cut import NoDiskError, disk_to_cut
from attninf_assets_tests.torture.attempts import Attempt, told
from attninf_assets_tests.torture.power_cuts import Said, cut, found_wrong, step

CUTS = [Attempt(1, number) for number in range(6)]


def test_what_was_done_before_a_power_cut_is_there_after_it_and_nothing_half_is_believed(tmp_path: Path) -> None:
    try:
        with disk_to_cut(tmp_path) as disk:
            assert told("power_cuts", (cut(attempt, disk) for attempt in CUTS)) == 0
    except NoDiskError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("lost", ["scores", "whole", "file", "record", "model"])
def test_what_a_power_cut_took_is_found_missing(tmp_path: Path, lost: str) -> None:
    root = Root.at(tmp_path)
    said: Said = []
    for number, what in enumerate(("scores", "whole", "file", "record", "model")):
        if what != lost:
            step(root, number, what)
        said.append(("done", number, what))
    _, wrong = found_wrong(root, said)
    assert len(wrong) >= 1
    assert " is absent, not " in wrong[0]
