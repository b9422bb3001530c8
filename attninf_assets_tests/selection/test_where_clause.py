"""A `where` is one condition on one document, and can do nothing else."""

import pytest

from attninf_assets.selection.where_clause import check_where

COLUMNS = {"doc_id": "VARCHAR", "domain": "VARCHAR", "n_tokens": "BIGINT", "score": "DOUBLE", "repetition": "DOUBLE"}


@pytest.mark.parametrize(
    ("where", "columns"),
    [
        ("repetition < 0.3 AND n_tokens >= 64", {"repetition", "n_tokens"}),
        ("Repetition < .5 -- a comment", {"repetition"}),
        ("NOT (n_tokens BETWEEN 3 AND 9) OR domain IN ('a', 'b')", {"n_tokens", "domain"}),
        ("doc_id LIKE 'http%' AND length(doc_id) < 100", {"doc_id"}),
        ("CASE WHEN domain = 'web' THEN score > 1 ELSE true END", {"domain", "score"}),
        ("coalesce(repetition, 0) * n_tokens / 2 > ln(n_tokens)", {"repetition", "n_tokens"}),
        ("score::INTEGER % 2 = 0 AND repetition IS NOT NULL", {"score", "repetition"}),
    ],
)
def test_a_condition_on_a_documents_columns_passes(where: str, columns: set[str]) -> None:
    assert check_where(where, COLUMNS) == columns


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("repetiton < 0.3", "repetiton: no such column; did you mean repetition?"),
        ("scores.score > 1", r"scores\.score: no such column"),
        ("n_tokens", "is of type BIGINT, not true or false"),
        ("true", "names no column"),
        ("score >", "not SQL: syntax error"),
        ("score > 1; DROP TABLE scores", "not SQL"),
        ("score > 1) UNION SELECT (true", "not a single expression"),
        ("score > 1 LIMIT 3", "not SQL"),
        ("score > ?", "not a single expression"),
        ("score > (SELECT max(score) FROM scores)", "a subquery may not stand in it"),
        ("EXISTS (FROM read_text('/etc/passwd'))", "a subquery may not stand in it"),
        ("score IN (FROM 'scores.parquet')", "a subquery may not stand in it"),
        ("read_text('/etc/passwd') IS NULL AND score > 1", "function read_text: may not stand in it"),
        ("getenv('HOME') = doc_id", "function getenv: may not stand in it"),
        ("current_setting('threads') = doc_id", "function current_setting: may not stand in it"),
        ("COLUMNS('s.*') > 1", "may not stand in it"),
        ("count(*) > 1 AND score > 1", "function count_star: may not stand in it"),
        ("row_number() OVER () > n_tokens", "a window may not stand in it"),
        ("random() < score", "function random: may not stand in it"),
        ("COPY (SELECT 1) TO 'x'", "not SQL"),
        ("score > 'much'", "Conversion Error|Could not convert"),
    ],
)
def test_whatever_else_is_refused(where: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_where(where, COLUMNS)
