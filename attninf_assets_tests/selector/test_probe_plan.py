"""How much is detected and held against random heads, by default and where numbers are given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.selector.probe_plan import PLANS, EvidencePlan, evidence_for


def test_the_plans_are_the_papers_and_the_demos() -> None:
    assert (PLANS["paper"].n_probes, PLANS["paper"].probe_tokens) == (800, 4096)
    assert (PLANS["small"].n_probes, PLANS["small"].probe_tokens) == (16, 512)
    assert evidence_for(800) == EvidencePlan(64, 5, 8)
    assert evidence_for(16) == EvidencePlan(3, 3, 1)


@given(n_probes=st.integers(1, 2000), more=st.integers(0, 500))
def test_evidence_grows_with_the_probes_and_stays_below_them(n_probes: int, more: int) -> None:
    plan, larger = evidence_for(n_probes), evidence_for(n_probes + more)
    assert 1 <= plan.n_audit_probes <= plan.n_evidence_probes <= n_probes
    assert all(a <= b for a, b in zip(vars(plan).values(), vars(larger).values(), strict=True))


@given(n_probes=st.integers(1, 100), data=st.data())
def test_a_number_that_is_given_is_obeyed_or_refused_by_name(n_probes: int, data: st.DataObject) -> None:
    names = ("n_evidence_probes", "n_random_sets", "n_audit_probes")
    given_ = data.draw(st.dictionaries(st.sampled_from(names), st.integers(-1, 120)))
    probes, audited = given_.get("n_evidence_probes", 1), given_.get("n_audit_probes", 1)
    default = evidence_for(n_probes).n_evidence_probes
    if min(*given_.values(), 1, 1) < 1 or probes > n_probes or audited > given_.get("n_evidence_probes", default):
        with pytest.raises(ValueError, match="|".join(given_)):
            evidence_for(n_probes, **given_)
        return
    plan = evidence_for(n_probes, **given_)
    assert all(getattr(plan, name) == value for name, value in given_.items())
    assert 1 <= plan.n_audit_probes <= plan.n_evidence_probes <= n_probes


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"n_evidence_probes": 17}, "n_evidence_probes must be at most the number of probes, 16, is 17"),
        ({"n_random_sets": 0}, "n_random_sets must be at least 1, is 0"),
        ({"n_audit_probes": 4}, r"n_audit_probes must not exceed n_evidence_probes \(3\), is 4"),
    ],
)
def test_what_no_evidence_can_be_gathered_with_is_refused(given_: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        evidence_for(16, **given_)
