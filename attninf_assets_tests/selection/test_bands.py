"""Bands of equal tokens: they divide what is scored, and each has a twentieth of it to within one document."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attninf_assets.selection import cuts
from attninf_assets.selection.bands import BANDS, score_bands
from attninf_assets.store.schemas import TABLES
from attninf_assets_tests.support.drawn_scores import Row, connection_to, drawn_rows, ranking, scored_row


def _by_plain_sort(ranked: list[Row]) -> list[list[Row]]:
    """The documents of each band: down to the first document by which so many twentieths of the tokens are reached."""
    total = sum(row["n_tokens"] for row in ranked)
    bands: list[list[Row]] = [[]]
    passed = 0
    for row in ranked:
        while len(bands) < 20 and passed >= Fraction(len(bands), 20) * total:
            bands.append([])
        bands[-1].append(row)
        passed += row["n_tokens"]
    return bands + [[]] * (20 - len(bands))


@pytest.mark.parametrize("few", [19, 200_000])
def test_bands_are_those_of_a_plain_sort(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`few` documents are sorted without looking closer: a small number forces every finer pass."""
    monkeypatch.setattr(cuts, "_FEW", few)

    @settings(max_examples=30, deadline=None)
    @given(rows=drawn_rows(most_tokens=30))
    def agrees(rows: list[Row]) -> None:
        with connection_to(scores=rows) as connection:
            found = score_bands(connection, selector_fingerprint="f")
        assert found.schema.equals(TABLES["score_bands"])
        wanted = {
            (domain, number): band
            for domain, ranked in ranking(rows).items()
            for number, band in enumerate(_by_plain_sort(ranked), start=1)
        }
        assert [(row["domain"], row["band_number"]) for row in found.to_pylist()] == sorted(wanted)
        for row in found.to_pylist():
            band = wanted[row["domain"], row["band_number"]]
            assert row["band"] == BANDS[row["band_number"] - 1]
            assert (row["n_documents"], row["n_tokens"]) == (len(band), sum(one["n_tokens"] for one in band))
            assert row["mean_repetition"] is None
            if not band:
                assert (
                    row["lowest_score"] is row["highest_score"] is row["mean_tokens"] is row["mean_loss_base"] is None
                )
                continue
            ends = (row["highest_score"], row["lowest_score"], row["lowest_doc_id"])
            assert ends == (band[0]["score"], band[-1]["score"], band[-1]["doc_id"])
            for mean, column in (("mean_loss_base", "loss_base"), ("mean_tokens", "n_tokens")):
                assert row[mean] == pytest.approx(sum(one[column] for one in band) / len(band), abs=1e-8)

    agrees()


@settings(max_examples=30, deadline=None)
@given(rows=drawn_rows(most_tokens=500))
def test_bands_partition_what_is_scored_and_have_equal_tokens_to_within_one_document(rows: list[Row]) -> None:
    with connection_to(scores=rows) as connection:
        found = score_bands(connection, selector_fingerprint="f").to_pylist()
    for domain, ranked in ranking(rows).items():
        bands = [row for row in found if row["domain"] == domain]
        assert sum(band["n_documents"] for band in bands) == len(ranked)
        total, longest = (of(row["n_tokens"] for row in ranked) for of in (sum, max))
        assert sum(band["n_tokens"] for band in bands) == total
        assert all(abs(band["n_tokens"] - Fraction(total, 20)) < longest for band in bands)
        of_each = [
            sum(
                band["lowest_score"] is not None
                and (band["lowest_score"], band["lowest_doc_id"]) <= (row["score"], row["doc_id"])
                and row["score"] <= band["highest_score"]
                for band in bands
            )
            for row in ranked
        ]
        assert all(of >= 1 for of in of_each)
    assert {row["domain"] for row in found} == set(ranking(rows))


@settings(max_examples=3, deadline=None)
@given(n=st.integers(1, 60))
def test_documents_of_one_length_are_shared_out_evenly(n: int) -> None:
    rows = [scored_row("web", f"{number:03d}", float(number), n_tokens=7) for number in range(20 * n)]
    with connection_to(scores=rows) as connection:
        bands = score_bands(connection, selector_fingerprint="f").to_pylist()
    assert [band["n_documents"] for band in bands] == [n] * 20
    assert bands[0]["lowest_score"] == 19 * n
    assert bands[0]["band"] == "0-5"


def test_the_repetition_of_a_band_is_that_of_the_documents_where_it_is_known() -> None:
    rows = [scored_row("web", f"{number:02d}", float(number)) for number in range(40)]
    with connection_to(scores=rows) as connection:
        connection.execute(
            "CREATE VIEW document_features AS SELECT domain, shard, doc_id, score / 10 AS repetition FROM scores "
            "WHERE score <> 38 AND score NOT IN (0, 1)"
        )
        bands = score_bands(connection, selector_fingerprint="f", with_repetition=True).to_pylist()
    assert [bands[0]["mean_repetition"], bands[1]["mean_repetition"], bands[-1]["mean_repetition"]] == [3.9, 3.65, None]
