"""Building of a selector from a model: pin it, build probes, detect its heads once, gather evidence."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from attninf_assets.influence.detection import (
    DETECTION_VERSION,
    MIN_EFFECT,
    MIN_RATIO,
    DetectionCost,
    DetectionPrice,
    HeadEvidence,
)
from attninf_assets.influence.engine import load_engine
from attninf_assets.influence.evidence import gather_evidence
from attninf_assets.influence.heads import detect_retrieval_heads
from attninf_assets.influence.model.head import MASKS, Head, Mask
from attninf_assets.influence.model.numeric_class import NUMERIC_CLASSES, NumericClass
from attninf_assets.influence.model.text_tokenizer import load_tokenizer
from attninf_assets.influence.model.window import MAX_TOKENS, bounded_window, context_length
from attninf_assets.influence.price import detection_flops, detection_price
from attninf_assets.influence.probes import Probe, ProbeTooLongError, build_probes, probes_digest
from attninf_assets.influence.runtime.progress import BudgetHalved, Progress
from attninf_assets.influence.selector import Selector
from attninf_assets.selector.default_class import class_in_use, keeps_the_ranking, multiplies_16_bits
from attninf_assets.selector.model_files import is_intact, publish_directory
from attninf_assets.selector.model_source import ModelDigests
from attninf_assets.selector.pinning import pin_model
from attninf_assets.selector.probe_plan import EvidencePlan
from attninf_assets.selector.stored import (
    Detection,
    PinnedModel,
    publish_pinned_model,
    store_detection,
    stored_detection,
)
from attninf_assets.store.json_records import read_record, sealed
from attninf_assets.store.root import Root
from attninf_assets.store.scratch import scratch_directory

OnDetection = Callable[[Progress | BudgetHalved | DetectionPrice | DetectionCost], None]

_LOG = logging.getLogger(__name__)


def ignore_detection(_: object) -> None:
    """A receiver of reports on detection that does nothing with them; the default."""


@dataclass(frozen=True)
class HeadSettings:
    """The settings of head detection and of scoring: share of heads, mask, window in tokens, numeric class.

    Raises `ValueError` naming the field where one has a value that is not allowed.
    """

    head_fraction: float
    mask: Mask
    max_tokens: int
    numeric_class: NumericClass

    def __post_init__(self) -> None:
        """Raise `ValueError` before detection for what the selector would refuse after it."""
        if not 0 < self.head_fraction <= 1:
            raise ValueError(f"head_fraction must be above 0 and at most 1, is {self.head_fraction}")
        for field, value, allowed in [
            ("mask", self.mask, MASKS),
            ("numeric_class", self.numeric_class, NUMERIC_CLASSES),
        ]:
            if value not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, is {value!r}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, is {self.max_tokens}")


@dataclass(frozen=True)
class BuiltSelector:
    """A selector with the detection and evidence that its heads come from."""

    selector: Selector
    detection: Detection
    reused: bool  # whether the detection is that of an earlier run


def pin_selector_model(root: Root, source: str) -> PinnedModel:
    """Pin the model at `source` under the root and make it the one in use. Raises `ValueError` as `pin_model` does."""
    pinned = pin_under(root, source)
    publish_pinned_model(root, pinned)
    return pinned


def pin_under(root: Root, source: str) -> PinnedModel:
    """Pin the model at `source` under the root; a GGUF file is converted only once.

    Where the same model is pinned already, its files are read and those that are damaged are replaced.
    Raises `ValueError` as `pin_model` does.
    """
    memo = _gguf_memo(source)
    if memo is not None and (digests := _converted_before(root, memo)) is not None:
        pinned = PinnedModel(digests, source)
        if is_intact(root, pinned.directory):
            return pinned
        _LOG.warning("%s: what it was converted to is not there as it was; the file is converted anew", source)
    with scratch_directory("pin") as scratch:
        directory = scratch / "model"
        pinned = PinnedModel(pin_model(source, directory), source)
        publish_directory(root, directory, pinned.directory)
    if memo is not None:
        root.write_bytes(memo, sealed(json.dumps(asdict(pinned.digests))))
    return pinned


def probes_for_model(
    directory: Path, sentences: Sequence[str], *, n_probes: int, probe_tokens: int, seed: int
) -> list[Probe]:
    """Build probes in the tokens of the model pinned in `directory`, none longer than its context."""
    tokenizer = load_tokenizer(directory)
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    return build_probes(
        sentences,
        tokenizer,
        start_token=tokenizer.start_token,
        n_probes=n_probes,
        max_tokens=bounded_window(probe_tokens - 1, config) + 1,
        seed=seed,
    )


def probes_that_fit(
    directory: Path, sentences: Sequence[str], *, n_probes: int, at_least: int, seed: int
) -> list[Probe]:
    """Probes of `at_least` so many tokens, doubled until the smallest probe has room."""
    longest = context_length(AutoConfig.from_pretrained(directory, local_files_only=True)) or MAX_TOKENS
    tokens = at_least
    while True:
        try:
            return probes_for_model(directory, sentences, n_probes=n_probes, probe_tokens=tokens, seed=seed)
        except ProbeTooLongError:
            if tokens >= longest:
                raise
            tokens *= 2


def build_selector(
    root: Root,
    digests: ModelDigests,
    probes: Sequence[Probe],
    settings: HeadSettings,
    *,
    directory: Path,
    evidence: EvidencePlan,
    device: torch.device,
    memory: Path | None = None,
    on_progress: OnDetection = ignore_detection,
) -> BuiltSelector:
    """The selector with the heads found on the probes.

    Before heads are detected, `on_progress` is told what that will cost. `directory` holds the pinned model, compared
    with its digest, `memory` what the engine remembers of it on this machine (`load_engine`). A detection with the same
    model, probes and settings is never paid for twice.
    Raises `ValueError` where detection finds only noise, or heads that do not matter.
    """
    key = _detection_key(digests, probes, settings, evidence)
    try:
        found = stored_detection(root, key)
    except ValueError as error:
        _LOG.warning("%s; heads are detected anew", error)
        found = None
    reused = found is not None
    if found is None:
        found = gather_detection(
            probes,
            settings,
            directory=directory,
            evidence=evidence,
            device=device,
            memory=memory,
            model_digest=digests.model,
            on_progress=on_progress,
        )
        store_detection(root, key, found)
    require_that_heads_matter(found.evidence)
    selector = selector_with_heads(found.detection.retrieval_heads, settings, digests, directory=directory)
    return BuiltSelector(selector, found, reused)


def build_default_selector(
    root: Root,
    digests: ModelDigests,
    probes: Sequence[Probe],
    settings: HeadSettings,
    *,
    directory: Path,
    evidence: EvidencePlan,
    device: torch.device,
    memory: Path | None = None,
    on_progress: OnDetection = ignore_detection,
) -> BuiltSelector:
    """As `build_selector`, where nobody asked for a numeric class.

    On a CPU it is that of the selector in use, if that is of the same model. Else, where the CPU has instructions for
    it, bfloat16, if the selector's ranking survives it; and in all other cases the class of `settings`.
    """

    def build(numeric_class: NumericClass) -> BuiltSelector:
        return build_selector(
            root,
            digests,
            probes,
            replace(settings, numeric_class=numeric_class),
            directory=directory,
            evidence=evidence,
            device=device,
            memory=memory,
            on_progress=on_progress,
        )

    if (in_use := class_in_use(root, digests, device)) is not None:
        return build(in_use)
    if multiplies_16_bits(device):
        built = build("bfloat16")
        if keeps_the_ranking(built.selector, probes, directory=directory, device=device):
            return built
    return build(settings.numeric_class)


def selector_with_heads(
    heads: Sequence[Head], settings: HeadSettings, digests: ModelDigests, *, directory: Path
) -> Selector:
    """The selector that masks `heads` in the model pinned in `directory`.

    Its windows are bounded by the model's context. Raises `ValueError` for a head that the model does not have.
    """
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    require_that_heads_exist(heads, config)
    return Selector(
        model_digest=digests.model,
        tokenizer_digest=digests.tokenizer,
        heads=tuple(heads),
        mask=settings.mask,
        max_tokens=bounded_window(settings.max_tokens, config),
        start_token=load_tokenizer(directory).start_token_name,
        numeric_class=settings.numeric_class,
    )


def require_that_heads_exist(heads: Iterable[Head], config: Any) -> None:
    """Raise `ValueError`, naming the first of them, for heads that a model with this config does not have."""
    text_config = config.get_text_config()
    n_layers, n_heads = text_config.num_hidden_layers, text_config.num_attention_heads
    for head in heads:
        if not (0 <= head.layer < n_layers and 0 <= head.index < n_heads):
            raise ValueError(f"heads: the model has no head {head}; it has {n_layers} layers of {n_heads} heads")


def gather_detection(
    probes: Sequence[Probe],
    settings: HeadSettings,
    *,
    directory: Path,
    evidence: EvidencePlan,
    device: torch.device,
    memory: Path | None = None,
    model_digest: str | None = None,
    on_progress: OnDetection = ignore_detection,
) -> Detection:
    """Score every head of the model pinned in `directory` on the probes, choose, and gather evidence for the choice.

    `memory` and `model_digest` are `load_engine`'s.

    Raises `ValueError` where detection finds only noise; whether the heads matter is for the caller to require.
    """
    engine = load_engine(
        directory,
        numeric_class=settings.numeric_class,
        max_tokens=settings.max_tokens,
        device=device,
        memory=memory,
        model_digest=model_digest,
    )
    held_against = probes[:: max(1, len(probes) // evidence.n_evidence_probes)][: evidence.n_evidence_probes]
    price = detection_price(
        engine.model,
        probes,
        held_against,
        head_fraction=settings.head_fraction,
        n_random_sets=evidence.n_random_sets,
        n_audit_probes=evidence.n_audit_probes,
        rate=engine.detection_rate,
    )
    on_progress(price)
    started = time.monotonic()
    detection = detect_retrieval_heads(
        engine.model,
        probes,
        head_fraction=settings.head_fraction,
        token_budget=engine.token_budget,
        on_progress=on_progress,
    )
    detected = time.monotonic()
    engine.detection_rate.write(detection_flops(engine.model, probes) / max(detected - started, 1e-9))
    gathered = gather_evidence(
        engine.model,
        held_against,
        detection.retrieval_heads,
        mask=settings.mask,
        n_random_sets=evidence.n_random_sets,
        n_audit_probes=evidence.n_audit_probes,
        seed=0,
        token_budget=engine.token_budget,
        on_progress=on_progress,
    )
    on_progress(DetectionCost(detected - started, time.monotonic() - detected))
    return Detection(detection, gathered)


def require_that_heads_matter(evidence: HeadEvidence) -> None:
    """Raise `ValueError`, with the losses seen, unless masking the heads hurts far more than masking random ones."""
    if not evidence.heads_matter:
        raise ValueError(
            "the heads found do not matter: masking them raises the probes' answer loss by "
            f"{evidence.effect:.3f} nats, masking as many random heads by {evidence.random_effect:.3f} (median); "
            f"at least {MIN_EFFECT} nats and {MIN_RATIO:g} times the random effect are needed"
            + (f"; {', '.join(evidence.dominating)}" if evidence.dominating else "")
        )


def _detection_key(
    digests: ModelDigests, probes: Sequence[Probe], settings: HeadSettings, evidence: EvidencePlan
) -> str:
    """sha256 of everything that detection and its evidence depend on."""
    inputs = [
        DETECTION_VERSION,
        digests.model,
        probes_digest(probes),
        [settings.head_fraction, settings.mask, settings.numeric_class],
        [evidence.n_evidence_probes, evidence.n_random_sets, evidence.n_audit_probes],
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def _converted_before(root: Root, memo: str) -> ModelDigests | None:
    """What the GGUF file was converted to. None where it was not yet, or the note of it is damaged: it is made anew."""
    try:
        return read_record(root, memo, ModelDigests, made_by="selector_model")
    except FileNotFoundError:
        return None
    except ValueError as error:
        _LOG.warning("%s; the file is converted anew", error)
        return None


def _gguf_memo(source: str) -> str | None:
    path = Path(os.path.expanduser(source))
    if path.suffix != ".gguf" or not os.path.isfile(path):
        return None
    with path.open("rb") as stream:
        return f"selectors/gguf/{hashlib.file_digest(stream, 'sha256').hexdigest()}.json"
