"""What the UI asks, answered without a server: GraphQL over the project's definitions and any instance."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._time import get_current_datetime
from dagster_graphql.test.utils import execute_dagster_graphql

Ask = Callable[..., Any]


@contextmanager
def asked(instance: dg.DagsterInstance) -> Iterator[Ask]:
    """A function from a document and its variables to the answer's `data`; the definitions are loaded once."""
    origin = LoadableTargetOrigin(executable_path=sys.executable, module_name="attninf_assets.definitions")
    location = InProcessCodeLocationOrigin(origin, location_name="attninf_assets")
    with WorkspaceProcessContext(instance, InProcessTestWorkspaceLoadTarget(location)) as workspace:

        def ask(document: str, **variables: Any) -> Any:
            with partition_loading_context(get_current_datetime(), instance):
                answer = execute_dagster_graphql(workspace.create_request_context(), document, variables)
            assert not answer.errors, answer.errors
            return answer.data

        yield ask
