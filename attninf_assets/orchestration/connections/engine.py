"""The model of a selector, loaded on this machine's device; the last one stays resident in the process."""

from typing import TYPE_CHECKING

from attninf_assets.orchestration.connections.resources import LakeResource
from attninf_assets.selector.model_files import local_directory

if TYPE_CHECKING:
    from attninf_assets.influence.engine import Engine
    from attninf_assets.influence.selector import Selector


def load_selector_engine(lake: LakeResource, selector: "Selector", *, self_check: bool = False) -> "Engine":
    """The selector's model, on a device that is this process's alone from now on.

    With `self_check`, it is compared with its own forward pass again, whatever is remembered of an earlier comparison.
    """
    from attninf_assets.influence.engine import load_engine  # noqa: PLC0415 - torch comes with the run that computes
    from attninf_assets.influence.runtime.devices import choose_device, claim_device  # noqa: PLC0415

    claim_device()
    return load_engine(
        local_directory(lake.storage_root(), f"selectors/{selector.model_digest}", cache=lake.model_cache()),
        numeric_class=selector.numeric_class,
        max_tokens=selector.max_tokens,
        device=choose_device(),
        memory=lake.engine_memory(),
        model_digest=None if self_check else selector.model_digest,
    )
