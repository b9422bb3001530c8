"""Digests of models that are not pinned yet."""

import tempfile
from pathlib import Path

from attninf_assets.selector.model_source import ModelDigests
from attninf_assets.selector.pinning import pin_model


def digests_of(source: Path) -> ModelDigests:
    """The digests that the model at `source` is pinned under."""
    with tempfile.TemporaryDirectory() as scratch:
        return pin_model(str(source), Path(scratch) / "model", link=True)
