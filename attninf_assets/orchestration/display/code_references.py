"""Links from the UI to the code that makes an asset."""

import inspect
import warnings
from collections.abc import Sequence

import dagster as dg

from attninf_assets.orchestration.runs.dagster_internals import DecoratedOpFunction


def with_code_references(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets, each with file and line of its function.

    `dg.with_source_code_references` does not look behind decorators: it takes whatever is retried after transient
    faults for a part of `retries.py`."""
    return [_with_code_reference(asset) for asset in assets]


def _with_code_reference(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    computed_by = asset.op.compute_fn
    assert isinstance(computed_by, DecoratedOpFunction), asset.key
    code = inspect.unwrap(computed_by.decorated_fn).__code__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        place = dg.LocalFileCodeReference(file_path=code.co_filename, line_number=code.co_firstlineno)
        reference = dg.CodeReferencesMetadataValue(code_references=[place])
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(metadata={"dagster/code_references": reference}))
