"""What stands under `selectors/`: the selector in use, its fingerprint and its detection, whole or refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from attninf_assets.influence.detection import AnswerLoss, HeadDetection, HeadEvidence
from attninf_assets.influence.model.head import Head
from attninf_assets.influence.selector import SCORING_VERSION, Selector
from attninf_assets.selector.model_source import ModelDigests
from attninf_assets.selector.stored import (
    Detection,
    PinnedModel,
    current_detection,
    current_fingerprint,
    current_selector,
    pinned_model,
    publish_pinned_model,
    publish_selector,
    store_detection,
    stored_detection,
)
from attninf_assets.store.json_records import unsealed
from attninf_assets.store.root import Root

HEADS = (Head(0, 1), Head(1, 0))
SELECTOR = Selector("model", "tokenizer", HEADS, "uniform", 64, "bos", "float32")
DETECTION = Detection(
    HeadDetection(np.eye(2), np.zeros((2, 2)), HEADS, 4, 3, 0.9, 0.5),
    HeadEvidence(AnswerLoss(0.5, 0.9), AnswerLoss(3.0, 0.1), (AnswerLoss(0.6, 0.8),), (), 3),
)
CURRENT = "selectors/current.json"

Read = Callable[[Root], object]
READS: list[Read] = [current_selector, current_fingerprint, current_detection]


def test_what_was_published_last_is_in_use(root: Root) -> None:
    for selector in (replace(SELECTOR, mask="zero"), SELECTOR):
        publish_selector(root, selector, DETECTION)
    assert current_selector(root) == SELECTOR
    assert current_fingerprint(root) == SELECTOR.fingerprint
    found = current_detection(root)
    assert found.to_json() == DETECTION.to_json()
    assert found.detection.retrieval_heads == HEADS


@pytest.mark.parametrize("read", READS)
def test_before_any_detection_there_is_none_in_use(root: Root, read: Read) -> None:
    with pytest.raises(ValueError, match=f"{CURRENT} does not exist: materialize retrieval_heads first"):
        read(root)


@pytest.mark.parametrize("read", READS)
def test_a_selector_made_to_be_scored_with_other_code_is_refused_whatever_its_fields(root: Root, read: Read) -> None:
    publish_selector(root, replace(SELECTOR, scoring_version=SCORING_VERSION + 1), DETECTION)
    record = json.loads(unsealed(root.read_bytes(CURRENT)))
    record["selector"] = json.dumps(json.loads(record["selector"]) | {"a_field_of_that_code": 1})
    root.write_bytes(CURRENT, json.dumps(record).encode())
    with pytest.raises(ValueError, match=f"of scoring version {SCORING_VERSION + 1}, this code of {SCORING_VERSION}"):
        read(root)


def _changed(record: dict[str, Any], **fields: object) -> bytes:
    return json.dumps(record | fields).encode()


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda record: b"",
        lambda record: b"\xff",
        lambda record: b"[]",
        lambda record: json.dumps(record).encode()[:-20],
        lambda record: _changed(record, selector_fingerprint="another"),
        lambda record: _changed(record, selector=replace(SELECTOR, max_tokens=65).to_json()),
        lambda record: _changed(record, selector="{}"),
        lambda record: _changed(record, selector=None),
        lambda record: json.dumps({"selector": record["selector"], "detection": record["detection"]}).encode(),
    ],
)
def test_a_damaged_file_is_named(root: Root, read: Read, damage: Callable[[dict[str, Any]], bytes]) -> None:
    publish_selector(root, SELECTOR, DETECTION)
    root.write_bytes(CURRENT, damage(json.loads(unsealed(root.read_bytes(CURRENT)))))
    with pytest.raises(ValueError, match=f"{CURRENT}: damaged, materialize retrieval_heads again"):
        read(root)


def test_a_damaged_detection_is_named_and_only_where_it_is_asked_for(root: Root) -> None:
    publish_selector(root, SELECTOR, DETECTION)
    root.write_bytes(CURRENT, _changed(json.loads(unsealed(root.read_bytes(CURRENT))), detection="{}"))
    assert current_fingerprint(root) == SELECTOR.fingerprint
    with pytest.raises(ValueError, match=f"{CURRENT}: damaged"):
        current_detection(root)


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: b"",
        lambda stored: b"[]",
        lambda stored: json.dumps(stored).encode()[:-20],
        lambda stored: _changed(stored, evidence=None),
        lambda stored: _changed(stored, detection=stored["detection"] | {"scores_LH": [["high", "low"]]}),
        lambda stored: _changed(stored, detection=stored["detection"] | {"retrieval_heads": [1, 2]}),
        lambda stored: _changed(stored, evidence=stored["evidence"] | {"base": {"loss": "low", "token_accuracy": 1}}),
    ],
)
def test_a_damaged_stored_detection_is_named(root: Root, damage: Callable[[dict[str, Any]], bytes]) -> None:
    path = "selectors/detections/key.json"
    assert stored_detection(root, "key") is None
    store_detection(root, "key", DETECTION)
    found = stored_detection(root, "key")
    assert found is not None
    assert found.to_json() == DETECTION.to_json()
    root.write_bytes(path, damage(json.loads(unsealed(root.read_bytes(path)))))
    with pytest.raises(ValueError, match=f"{path}: damaged, materialize retrieval_heads again"):
        stored_detection(root, "key")


def test_the_pinned_model_is_the_last_one_or_refused(root: Root) -> None:
    with pytest.raises(ValueError, match=r"model\.json does not exist: materialize selector_model first"):
        pinned_model(root)
    pinned = PinnedModel(ModelDigests("m", "t"), "org/name@main")
    publish_pinned_model(root, pinned)
    assert pinned_model(root) == pinned
    root.write_bytes("selectors/model.json", b"{}")
    with pytest.raises(ValueError, match=r"model\.json: damaged, materialize selector_model again"):
        pinned_model(root)
