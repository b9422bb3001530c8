"""Bands as mixtures: what a trainer's mixer reads out of the file is the weights that were asked for."""

import math
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.selection.band_mixture import FORMATS, band_weights, mixture_file, read_weights
from attninf_assets.selection.bands import BANDS

WEIGHTS = {"0-5": 0, "5-50": 1, "50-95": 2, "95-100": 0.5}


def _rows(tokens: dict[str, list[int]]) -> list[dict[str, Any]]:
    return [
        {"domain": domain, "band": band, "n_tokens": n, "selector_fingerprint": "f"}
        for domain, of_domain in tokens.items()
        for band, n in zip(BANDS, of_domain, strict=True)
    ]


def test_weights_of_ranges_are_those_of_their_bands() -> None:
    weights = band_weights(WEIGHTS)
    assert list(weights) == list(BANDS)
    assert [weights[band] for band in ("0-5", "5-10", "45-50", "50-55", "90-95", "95-100")] == [0, 1, 1, 2, 2, 0.5]
    assert read_weights('{"0-5": 0, "5-50": 1, "50-95": 2, "95-100": 0.5}') == weights
    assert read_weights("{0-100: 1}") == dict.fromkeys(BANDS, 1.0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{0-7: 1, 7-100: 1}", "'0-7': expected a range of percent"),
        ("{5-0: 1}", "'5-0': expected a range"),
        ("{0-105: 1}", "'0-105': expected a range"),
        ("{best: 1}", "'best': expected a range"),
        ("{0-50: 1, 45-100: 1}", "45-100: band 45-50 has a weight already"),
        ("{0-50: 1}", "band 50-55 has no weight"),
        ("{0-100: -1}", "weight -1: expected a number, 0 or more"),
        ("{0-100: .nan}", "weight nan: expected a number"),
        ("{0-100: yes}", "weight True: expected a number"),
        ("{0-100: 0}", "every weight is 0"),
        ("0-100", "expected a mapping"),
        ("{", "is no YAML"),
    ],
)
def test_weights_that_are_none_are_refused_by_range_and_value(text: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted) as error:
        read_weights(text)
    assert str(error.value).startswith("bands: ")
    assert "\n" not in str(error.value)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.dictionaries(
        st.sampled_from(["web", "code", "a_b"]),
        st.lists(st.integers(1, 10**9), min_size=20, max_size=20),
        min_size=1,
    )
)
def test_a_source_has_the_share_of_its_tokens_times_its_weight(tokens: dict[str, list[int]]) -> None:
    weights = band_weights(WEIGHTS)
    rows = _rows(tokens)
    masses = {(row["domain"], row["band"]): row["n_tokens"] * weights[row["band"]] for row in rows}
    total = sum(masses.values())
    wanted = {place: mass / total for place, mass in masses.items() if mass}
    olmo = yaml.safe_load(mixture_file(rows, weights=weights, tokens_under="s3://b/tokens/", to="olmo"))
    assert math.isclose(sum(source["target_ratio"] for source in olmo["sources"]), 1.0, rel_tol=1e-12)
    assert {source["source_name"]: source["target_ratio"] for source in olmo["sources"]} == {
        f"{domain}_{band}": pytest.approx(share) for (domain, band), share in wanted.items()
    }
    assert all(source["max_repetition_ratio"] >= 1 for source in olmo["sources"])
    olmix = yaml.safe_load(mixture_file(rows, weights=weights, tokens_under="s3://b/tokens", to="olmix"))
    named = {
        (source["name"], band["name"]): band["paths"]
        for source in olmix["data"]["sources"]
        for band in source["quality"]
    }
    assert named.keys() == wanted.keys()
    for (domain, band), share in wanted.items():
        assert named[domain, band] == [f"s3://b/tokens/{domain}/{band}/*.npy"]
        mix = olmix["mix"][domain]
        assert mix["weight"] * mix[band]["weight"] == pytest.approx(share)
        assert mix[band]["repetition_factor"] == max(1, weights[band])


@pytest.mark.parametrize("to", FORMATS)
def test_bands_that_are_empty_are_no_sources_and_none_at_all_is_refused(to: Any) -> None:
    weights = band_weights({"0-50": 1, "50-100": 0})
    written = mixture_file(_rows({"web": [7, *[0] * 18, 9]}), weights=weights, tokens_under="t", to=to)
    assert "0-5" in written
    assert "5-10" not in written
    assert "95-100" not in written
    with pytest.raises(ValueError, match="no band with a weight above 0"):
        mixture_file(_rows({"web": [0] * 20}), weights=weights, tokens_under="t", to=to)
