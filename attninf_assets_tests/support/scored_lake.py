"""A lake with scores by a selector in use, and a selection of them, without any model."""

import numpy as np
import pyarrow as pa

from attninf_assets.influence.detection import AnswerLoss, HeadDetection, HeadEvidence
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import Selector
from attninf_assets.selection.definitions import Keep, SelectionDefinition
from attninf_assets.selection.thresholds import find_thresholds, selected
from attninf_assets.selector.stored import Detection, publish_selector
from attninf_assets.store.query import connect
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES
from attninf_assets.store.tables import Lake
from attninf_assets_tests.support.drawn_scores import scored_row

__all__ = ["publish", "score_and_select"]

_HEADS = (Head(0, 1), Head(1, 0))
_DETECTION = Detection(
    HeadDetection(np.eye(2), np.zeros((2, 2)), _HEADS, 4, 3, 0.9, 0.5),
    HeadEvidence(AnswerLoss(0.5, 0.9), AnswerLoss(3.0, 0.1), (AnswerLoss(0.6, 0.8),), (), 3),
)


def publish(root: Root, *, model: str = "model") -> str:
    """Make a selector of that model the one in use; returns its fingerprint."""
    selector = Selector(model, "tokenizer", _HEADS, "uniform", 64, "bos", "float32")
    publish_selector(root, selector, _DETECTION)
    return selector.fingerprint


def score_and_select(root: Root, fingerprint: str, scores: dict[str, list[float]], *, fraction: float = 0.2) -> int:
    """Score the documents `d0`, `d1`, … of each domain, and select of them; returns the selection's version."""
    lake = Lake(root)
    for domain, of_domain in scores.items():
        rows = [
            scored_row(domain, f"d{number}", score, n_tokens=10, fingerprint=fingerprint)
            for number, score in enumerate(of_domain)
        ]
        table = pa.Table.from_pylist(rows, schema=TABLES["scores"])
        lake.replace("scores", table, where={"domain": domain, "shard": "a"})
    definition = SelectionDefinition(keep=Keep(fraction=fraction))
    with connect(lake, "scores") as connection:
        found = find_thresholds(connection, selector_fingerprint=fingerprint, definition=definition)
    lake.replace("thresholds", found)
    with connect(lake, "scores", "thresholds") as connection:
        return lake.replace("selected_subset", selected(connection, selector_fingerprint=fingerprint))
