"""Select reasoning-intensive pretraining data with AttentionInfluence (arXiv 2505.07293) in Dagster.

As a library: `detect_selector` finds a model's retrieval heads, `score_texts` scores texts with them. The names are
loaded when they are first asked for; importing the package loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attninf_assets.influence.scoring import DocumentScore
    from attninf_assets.influence.selector import Selector
    from attninf_assets.selector.library import detect_selector, score_texts

__all__ = ["DocumentScore", "Selector", "detect_selector", "score_texts"]

_HOMES = {
    "DocumentScore": "attninf_assets.influence.scoring",
    "Selector": "attninf_assets.influence.selector",
    "detect_selector": "attninf_assets.selector.library",
    "score_texts": "attninf_assets.selector.library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
