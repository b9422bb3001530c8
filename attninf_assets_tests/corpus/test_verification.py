"""Why rows were refused, and which ids occur again."""

import duckdb
import pyarrow as pa

from attninf_assets.corpus.verification import refusal_reasons, repeated_ids


def test_the_commonest_reasons_come_first() -> None:
    with duckdb.connect() as connection:
        connection.register("quarantine", pa.table({"reason": ["empty", "null", "null", "bytes", "bytes", "again"]}))
        assert list(refusal_reasons(connection, most=3).items()) == [("bytes", 2), ("null", 2), ("again", 1)]


def test_ids_of_the_shard_that_occur_anywhere_in_the_domain_again_are_counted() -> None:
    documents = {"doc_id": ["1", "2", "2", "3", "3", "4", "4"], "shard": ["a", "a", "a", "a", "b", "b", "b"]}
    with duckdb.connect() as connection:
        connection.register("documents", pa.table(documents))
        assert repeated_ids(connection, shard="a") == {"2": 2, "3": 2}
        assert repeated_ids(connection, shard="b") == {"3": 2, "4": 2}
        assert len(repeated_ids(connection, shard="a", most=1)) == 1
        assert repeated_ids(connection, shard="c") == {}
