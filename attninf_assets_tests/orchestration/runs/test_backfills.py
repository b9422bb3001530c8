"""What is asked of a webserver is what the installed Dagster answers."""

import pytest
from dagster_graphql.schema import create_schema
from graphql import GraphQLSchema, parse, validate

from attninf_assets.orchestration.connections.webserver import Webserver
from attninf_assets.orchestration.runs.backfills import (
    DOCUMENTS,
    ENDED,
    PARTITIONS,
    BackfillProgress,
    PartitionedAsset,
    UnknownPartitionError,
)


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    """The GraphQL schema of the installed dagster_graphql."""
    return create_schema().graphql_schema


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda text: text.split()[1].partition("(")[0])
def test_the_installed_dagster_understands_every_document(schema: GraphQLSchema, document: str) -> None:
    assert validate(schema, parse(document)) == []


def test_a_document_that_a_dagster_no_longer_understands_does_not_pass(schema: GraphQLSchema) -> None:
    (error,) = validate(schema, parse(PARTITIONS.replace("partitionKeys", "partitionNames")))
    assert "Cannot query field 'partitionNames'" in error.message


def test_every_status_in_which_a_backfill_ends_is_one_of_dagsters(schema: GraphQLSchema) -> None:
    from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES

    assert set(ENDED) == {status.value for status in BULK_ACTION_TERMINAL_STATUSES}
    assert {"STALE"} <= schema.type_map["StaleStatus"].values.keys()  # type: ignore[attr-defined]


def progress(status: str, *counts: int, seconds: float = 120.0) -> BackfillProgress:
    targeted, materialized, failed, in_progress = counts
    return BackfillProgress(status, targeted, materialized, failed, in_progress, seconds, None)


def test_progress_says_what_is_done_how_fast_and_how_long_still() -> None:
    assert str(progress("REQUESTED", 40, 11, 1, 4)) == (
        "11 of 40 partitions done, 1 failed, 4 in progress; 6.0 a minute, about 5 min left"
    )
    assert str(progress("REQUESTED", 40, 0, 0, 4)) == "0 of 40 partitions done, 0 failed, 4 in progress"
    assert str(progress("COMPLETED_SUCCESS", 40, 40, 0, 0)) == "40 of 40 partitions done, 0 failed, 0 in progress"


def test_a_backfill_succeeded_only_if_it_ended_with_every_partition() -> None:
    assert progress("COMPLETED_SUCCESS", 3, 3, 0, 0).succeeded
    assert not progress("REQUESTED", 3, 3, 0, 0).succeeded
    assert not progress("COMPLETED_FAILED", 3, 2, 1, 0).succeeded
    assert not progress("COMPLETED_SUCCESS", 3, 2, 0, 0).succeeded
    assert not progress("CANCELED", 3, 3, 0, 0).succeeded


def test_a_key_that_is_no_partition_is_refused_with_what_is_near_it() -> None:
    asset = PartitionedAsset(Webserver("http://here:3000/"), "scores", ("web.a", "web.b", "code.x"))
    assert asset.only(["code.x", "web.a", "code.x"]) == ["code.x", "web.a"]
    with pytest.raises(
        UnknownPartitionError, match=r"^http://here:3000: scores has no partition 'web\.c'; near it: web"
    ):
        asset.only(["web.a", "web.c"])
    with pytest.raises(UnknownPartitionError, match="no partition 'zzzzzzz'; there are 3 others"):
        asset.only(["zzzzzzz"])
