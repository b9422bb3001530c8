"""The state kept under `selectors/`: the pinned model in use, detections already paid for, and the current selector."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from attninf_assets.influence.detection import HeadDetection, HeadEvidence
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.probes import Probe
from attninf_assets.influence.selector import SCORING_VERSION, Selector
from attninf_assets.selector.model_source import ModelDigests
from attninf_assets.store.json_records import sealed, unsealed
from attninf_assets.store.root import Root
from attninf_assets.store.schemas import TABLES

_MODEL, _PINNED_BY = "selectors/model.json", "selector_model"
_CURRENT, _DETECTED_BY = "selectors/current.json", "retrieval_heads"


@dataclass(frozen=True)
class PinnedModel:
    """The model that was pinned last, with its digests and where it came from."""

    digests: ModelDigests
    source: str

    @property
    def directory(self) -> str:
        """The model's directory, relative to the root."""
        return f"selectors/{self.digests.model}"


@dataclass(frozen=True)
class Detection:
    """Head detection on one model with one probe set, and the evidence for its heads."""

    detection: HeadDetection
    evidence: HeadEvidence

    def to_json(self) -> str:
        """The detection and its evidence as JSON, which `from_json` reads."""
        found = asdict(self.detection) | {
            "scores_LH": self.detection.scores_LH.tolist(),
            "deviations_LH": self.detection.deviations_LH.tolist(),
            "retrieval_heads": [[head.layer, head.index] for head in self.detection.retrieval_heads],
        }
        return json.dumps({"detection": found, "evidence": asdict(self.evidence)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The detection that `to_json` wrote."""
        stored = json.loads(text)
        found, evidence = stored["detection"], stored["evidence"]
        return cls(
            HeadDetection(
                **found
                | {
                    "scores_LH": np.array(found["scores_LH"], dtype=float),
                    "deviations_LH": np.array(found["deviations_LH"], dtype=float),
                    "retrieval_heads": tuple(Head(layer, index) for layer, index in found["retrieval_heads"]),
                }
            ),
            TypeAdapter(HeadEvidence).validate_python(evidence),
        )


def publish_pinned_model(root: Root, pinned: PinnedModel) -> None:
    """Make `pinned` the model in use."""
    root.write_bytes(_MODEL, sealed(json.dumps(asdict(pinned))))


def pinned_model(root: Root) -> PinnedModel:
    """The pinned model in use. Raises `ValueError` where none was pinned yet."""
    stored = _read(root, _MODEL, made_by=_PINNED_BY)
    with _intact(root, _MODEL, made_by=_PINNED_BY):
        return PinnedModel(ModelDigests(**stored["digests"]), stored["source"])


def models_in_use(root: Root) -> frozenset[str] | None:
    """The digests of the model that was pinned last and of the selector's, of what can be read; None if nothing can."""

    def of_selector() -> str:
        stored = _read(root, _CURRENT, made_by=_DETECTED_BY)
        with _intact(root, _CURRENT, made_by=_DETECTED_BY):
            return str(json.loads(stored["selector"])["model_digest"])

    found: set[str] = set()
    for digest in (lambda: pinned_model(root).digests.model, of_selector):
        with suppress(ValueError):
            found.add(digest())
    return frozenset(found) or None


def publish_selector(root: Root, selector: Selector, detection: Detection) -> None:
    """Make `selector`, whose heads `detection` found, the one that scores are made with, in one atomic write."""
    record = {
        "selector": selector.to_json(),
        "detection": detection.to_json(),
        "selector_fingerprint": selector.fingerprint,
    }
    root.write_bytes(_CURRENT, sealed(json.dumps(record)))


def has_selector(root: Root) -> bool:
    """Whether there is a selector in use: heads have been detected at least once."""
    return root.exists(_CURRENT)


def current_selector(root: Root) -> Selector:
    """The selector in use.

    Raises `ValueError` where there is none, it was made to be scored with other code, or its file is damaged.
    """
    return _current(root)[0]


def current_fingerprint(root: Root) -> str:
    """The fingerprint of the selector in use. Raises as `current_selector` does."""
    return current_selector(root).fingerprint


def current_detection(root: Root) -> Detection:
    """The detection that the heads of the selector in use came from. Raises as `current_selector` does."""
    _, detection = _current(root)
    with _intact(root, _CURRENT, made_by=_DETECTED_BY):
        return Detection.from_json(detection)


def _current(root: Root) -> tuple[Selector, str]:
    """The selector in use, and its detection as JSON, which is long and seldom asked for."""
    stored = _read(root, _CURRENT, made_by=_DETECTED_BY)
    with _intact(root, _CURRENT, made_by=_DETECTED_BY):
        text, detection, fingerprint = (stored[name] for name in ("selector", "detection", "selector_fingerprint"))
        scoring_version = json.loads(text)["scoring_version"]
        selector = Selector.from_json(text) if scoring_version == SCORING_VERSION else None
        if selector is not None and selector.fingerprint != fingerprint:
            raise ValueError(f"selector_fingerprint is {fingerprint!r}, that of its selector {selector.fingerprint!r}")
    if selector is None:
        raise ValueError(
            f"the selector in use is of scoring version {scoring_version}, this code of {SCORING_VERSION}: "
            "materialize retrieval_heads again"
        )
    return selector, detection


def stored_detection(root: Root, key: str) -> Detection | None:
    """The stored detection made from exactly the inputs that `key` digests; None if there is none.

    Raises `ValueError` naming the file if it is damaged.
    """
    path = f"selectors/detections/{key}.json"
    if not root.exists(path):
        return None
    content = root.read_bytes(path)
    with _intact(root, path, made_by=_DETECTED_BY):
        return Detection.from_json(unsealed(content).decode())


def store_detection(root: Root, key: str, detection: Detection) -> None:
    """Store a detection under `key`, so that the same one is never paid for twice."""
    root.write_bytes(f"selectors/detections/{key}.json", sealed(detection.to_json()))


def head_scores_table(selector: Selector, detection: HeadDetection) -> pa.Table:
    """The selector's rows of the table `head_scores`, one per head of the model."""
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
    """The probes as rows of the table `retrieval_probes`."""
    rows = [{"probe_id": number} | asdict(probe) for number, probe in enumerate(probes)]
    return pa.Table.from_pylist(rows, schema=TABLES["retrieval_probes"])


def probes_from_table(table: pa.Table) -> list[Probe]:
    """The probes of the table `retrieval_probes`, in order. Raises `ValueError` where there are none."""
    if not table.num_rows:
        raise ValueError("table retrieval_probes is empty: materialize retrieval_probes")
    rows = table.sort_by("probe_id").drop_columns("probe_id").to_pylist()
    return [Probe(**row | {"token_ids": tuple(row["token_ids"])}) for row in rows]


def _read(root: Root, path: str, *, made_by: str) -> dict[str, Any]:
    if not root.exists(path):
        raise ValueError(f"{root.uri}/{path} does not exist: materialize {made_by} first")
    content = root.read_bytes(path)
    with _intact(root, path, made_by=made_by):
        return json.loads(unsealed(content))


@contextmanager
def _intact(root: Root, path: str, *, made_by: str) -> Iterator[None]:
    """What fails to be understood in here is the file's fault, which is named, with the asset that writes it anew."""
    try:
        yield
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{root.uri}/{path}: damaged, materialize {made_by} again: {error!r}") from error
