"""What stands under `selectors/`: the pinned model in use, detections already paid for, and the current selector."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from attninf_assets.influence.detection import AnswerLoss, HeadDetection, HeadEvidence
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.probes import Probe
from attninf_assets.influence.selector import SCORING_VERSION, Selector
from attninf_assets.selector.model_source import ModelDigests
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES

_MODEL = "selectors/model.json"
_CURRENT = "selectors/current.json"


@dataclass(frozen=True)
class PinnedModel:
    """The model that selector_model pinned last."""

    digests: ModelDigests
    source: str

    @property
    def directory(self) -> str:
        """Where it lies, relative to the root."""
        return f"selectors/{self.digests.model}"


@dataclass(frozen=True)
class Detection:
    """Head detection on one model with one probe set, and the evidence for its heads."""

    detection: HeadDetection
    evidence: HeadEvidence

    def to_json(self) -> str:
        found = asdict(self.detection) | {
            "scores_LH": self.detection.scores_LH.tolist(),
            "deviations_LH": self.detection.deviations_LH.tolist(),
            "retrieval_heads": [[head.layer, head.index] for head in self.detection.retrieval_heads],
        }
        return json.dumps({"detection": found, "evidence": asdict(self.evidence)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        stored = json.loads(text)
        found, evidence = stored["detection"], stored["evidence"]
        return cls(
            HeadDetection(
                **found
                | {
                    "scores_LH": np.array(found["scores_LH"]),
                    "deviations_LH": np.array(found["deviations_LH"]),
                    "retrieval_heads": tuple(Head(layer, index) for layer, index in found["retrieval_heads"]),
                }
            ),
            HeadEvidence(
                base=AnswerLoss(**evidence["base"]),
                reference=AnswerLoss(**evidence["reference"]),
                random_sets=tuple(AnswerLoss(**control) for control in evidence["random_sets"]),
                dominating=tuple(evidence["dominating"]),
                n_probes=evidence["n_probes"],
            ),
        )


@dataclass(frozen=True)
class CurrentSelector:
    """The selector that scores are made with, and the detection its heads came from."""

    selector: Selector
    detection: Detection


def publish_pinned_model(root: Root, pinned: PinnedModel) -> None:
    """Make `pinned` the model in use."""
    root.write_bytes(_MODEL, json.dumps(asdict(pinned)).encode())


def pinned_model(root: Root) -> PinnedModel:
    """The model in use. Raises `ValueError` where none was pinned yet."""
    stored = _read(root, _MODEL, missing="materialize selector_model")
    return PinnedModel(ModelDigests(**stored["digests"]), stored["source"])


def publish_selector(root: Root, current: CurrentSelector) -> None:
    """Make `current` the selector that scores are made with, in one atomic write."""
    record = {"selector": current.selector.to_json(), "detection": current.detection.to_json()}
    root.write_bytes(_CURRENT, json.dumps(record | {"selector_fingerprint": current.selector.fingerprint}).encode())


def has_selector(root: Root) -> bool:
    """Whether heads were ever detected, so that there is a selector in use."""
    return root.exists(_CURRENT)


def current_selector(root: Root) -> CurrentSelector:
    """The selector in use. Raises `ValueError` where there is none, or it was made to be scored with other code."""
    stored = _read(root, _CURRENT, missing="materialize retrieval_heads")
    selector = Selector.from_json(stored["selector"])
    if selector.scoring_version != SCORING_VERSION:
        raise ValueError(
            f"the selector in use is of scoring version {selector.scoring_version}, this code of {SCORING_VERSION}: "
            "materialize retrieval_heads again"
        )
    return CurrentSelector(selector, Detection.from_json(stored["detection"]))


def stored_detection(root: Root, key: str) -> Detection | None:
    """The detection made from exactly the inputs that `key` digests, if one was."""
    path = f"selectors/detections/{key}.json"
    return Detection.from_json(root.read_bytes(path).decode()) if root.exists(path) else None


def store_detection(root: Root, key: str, detection: Detection) -> None:
    """Keep a detection, so that the same one is never paid for twice."""
    root.write_bytes(f"selectors/detections/{key}.json", detection.to_json().encode())


def head_scores_table(current: CurrentSelector) -> pa.Table:
    """The selector's rows of the table `head_scores`, one per head of the model."""
    selector, detection = current.selector, current.detection.detection
    n_layers, n_heads = detection.scores_LH.shape
    heads = [Head(layer, index) for layer in range(n_layers) for index in range(n_heads)]
    return pa.table(
        {
            "selector_fingerprint": [selector.fingerprint] * len(heads),
            "model_digest": [selector.model_digest] * len(heads),
            "layer": [head.layer for head in heads],
            "head": [head.index for head in heads],
            "retrieval_score": detection.scores_LH.ravel(),
            "retrieval_score_sd": detection.deviations_LH.ravel(),
            "is_retrieval_head": [head in selector.head_set for head in heads],
        },
        schema=TABLES["head_scores"],
    )


def probes_table(probes: list[Probe]) -> pa.Table:
    """Probes as rows of the table `retrieval_probes`."""
    rows = [{"probe_id": number} | asdict(probe) for number, probe in enumerate(probes)]
    return pa.Table.from_pylist(rows, schema=TABLES["retrieval_probes"])


def probes_from_table(table: pa.Table) -> list[Probe]:
    """The probes of the table `retrieval_probes`, in order. Raises `ValueError` where there are none."""
    if not table.num_rows:
        raise ValueError("table retrieval_probes is empty: materialize retrieval_probes")
    rows = table.sort_by("probe_id").drop_columns("probe_id").to_pylist()
    return [Probe(**row | {"token_ids": tuple(row["token_ids"])}) for row in rows]


def _read(root: Root, path: str, *, missing: str) -> dict[str, Any]:
    if not root.exists(path):
        raise ValueError(f"{root.uri}/{path} does not exist: {missing} first")
    return json.loads(root.read_bytes(path))
