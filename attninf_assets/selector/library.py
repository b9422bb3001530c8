"""The method as a library: heads found from sentences, texts scored with them; no Dagster, no lake, no storage root."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from transformers import AutoConfig

from attninf_assets.influence.engine import load_engine
from attninf_assets.influence.model.head import Head, Mask
from attninf_assets.influence.model.numeric_class import NumericClass
from attninf_assets.influence.model.pretrained import choose_numeric_class
from attninf_assets.influence.model.window import MAX_TOKENS, bounded_window
from attninf_assets.influence.probes import Probe
from attninf_assets.influence.runtime.devices import choose_device
from attninf_assets.influence.runtime.progress import OnProgress, ignore_progress
from attninf_assets.influence.scoring import DocumentScore, Text
from attninf_assets.influence.selector import SCORING_VERSION, Selector
from attninf_assets.selector.building import (
    HeadSettings,
    OnDetection,
    gather_detection,
    ignore_detection,
    pin_under,
    probes_for_model,
    probes_that_fit,
    require_that_heads_exist,
    require_that_heads_matter,
    selector_with_heads,
)
from attninf_assets.selector.model_files import local_directory
from attninf_assets.selector.model_source import ModelDigests
from attninf_assets.selector.pinning import pin_model
from attninf_assets.selector.probe_plan import PLANS, evidence_for
from attninf_assets.store.root import Root
from attninf_assets.store.scratch import scratch_of_process

SMALL = PLANS["small"]
CONVERTED = Path("~/.cache/attninf_assets/converted")  # models made from GGUF files, by the files' sha256

Model = str | os.PathLike[str]


def detect_selector(
    model: Model,
    sentences: Iterable[str],
    *,
    n_probes: int = SMALL.n_probes,
    probe_tokens: int | None = None,
    head_fraction: float = 0.05,
    mask: Mask = "uniform",
    max_tokens: int = MAX_TOKENS,
    numeric_class: NumericClass | Literal["auto"] = "auto",
    device: torch.device | str | None = None,
    seed: int = 0,
    on_progress: OnDetection = ignore_detection,
) -> Selector:
    """The selector whose retrieval heads are found on probes made of `sentences`; equal inputs give equal fingerprints.

    `model` is a Hugging Face directory, a `.gguf` file (converted once, under `CONVERTED`) or `org/name@revision`.
    `sentences` are a few hundred of the corpus's own: 8 to 40 tokens each, at least four of them.

    The defaults are for trying the method and small models: 16 probes of 512 tokens, or of as many more as the smallest
    probe takes. On the sample model they find the paper-sized plan's heads but for one or two at the cut. The paper has
    `n_probes=800, probe_tokens=4096`; neither goes beyond the model's context. `numeric_class="auto"` is bfloat16 on
    CUDA and float32 elsewhere; `device=None` is CUDA, else MPS, else the CPU.

    Raises `ValueError` where the model cannot be pinned (see `pin_model`), too few sentences qualify, detection finds
    only noise, or the heads found do not matter: masking them costs the probes hardly more than masking random ones.
    """
    sentences = _sentences(sentences)
    pinned = _pinned(model)
    on = _device(device)
    settings = _settings(
        pinned.directory,
        head_fraction=head_fraction,
        mask=mask,
        max_tokens=max_tokens,
        numeric_class=choose_numeric_class(on) if numeric_class == "auto" else numeric_class,
    )
    probes = _probes(pinned.directory, sentences, n_probes=n_probes, probe_tokens=probe_tokens, seed=seed)
    found = gather_detection(
        probes,
        settings,
        directory=pinned.directory,
        evidence=evidence_for(n_probes),
        device=on,
        on_progress=on_progress,
    )
    require_that_heads_matter(found.evidence)
    return selector_with_heads(found.detection.retrieval_heads, settings, pinned.digests, directory=pinned.directory)


def selector_of(
    model: Model,
    heads: Sequence[Head],
    *,
    mask: Mask = "uniform",
    max_tokens: int = MAX_TOKENS,
    numeric_class: NumericClass | Literal["auto"] = "auto",
    device: torch.device | str | None = None,
) -> Selector:
    """The selector that masks heads known from elsewhere; whether they matter is not looked into.

    Raises `ValueError` for a head that the model does not have.
    """
    pinned = _pinned(model)
    settings = _settings(
        pinned.directory,
        head_fraction=1.0,
        mask=mask,
        max_tokens=max_tokens,
        numeric_class=choose_numeric_class(_device(device)) if numeric_class == "auto" else numeric_class,
    )
    return selector_with_heads(heads, settings, pinned.digests, directory=pinned.directory)


def score_texts(
    model: Model,
    selector: Selector,
    texts: Iterable[str],
    *,
    doc_ids: Iterable[str] | None = None,
    device: torch.device | str | None = None,
    n_bytes: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Iterator[DocumentScore]:
    """The texts' losses and scores under `selector`, in input order; without `doc_ids`, ids are "0", "1", ….

    `texts` may be a stream: a few packs' worth are held at a time. Progress is in bytes, so a stream whose progress is
    to be reported needs `n_bytes`, the size of all texts in UTF-8.

    Raises `ValueError`, before anything is scored, where the model is not the selector's (naming both digests), the
    selector was made to be scored with other code, or it names heads that the model does not have; and, on the way, for
    a text that is empty or not a string, and for more or fewer `doc_ids` than texts.
    """
    if not isinstance(selector, Selector):
        raise ValueError(f"selector: a {type(selector).__name__}, not a Selector; Selector.from_json reads one")
    for name, given in [("texts", texts), ("doc_ids", doc_ids)]:
        if isinstance(given, str):
            raise ValueError(f"{name}: one string, where several are needed: put it into a list")
    if n_bytes is None and isinstance(texts, Sequence):
        n_bytes = sum(len(text.encode(errors="replace")) for text in texts if isinstance(text, str))
    if n_bytes is None and on_progress is not ignore_progress:
        raise ValueError("n_bytes: needed where the progress over a stream of texts is to be reported")
    pinned = _pinned(model)
    if pinned.digests.model != selector.model_digest:
        raise ValueError(
            f"the selector's heads are those of model {selector.model_digest}, but {os.fspath(model)} is model "
            f"{pinned.digests.model}: detect the heads on this model, or score with the other"
        )
    if selector.scoring_version != SCORING_VERSION:
        raise ValueError(
            f"the selector is of scoring version {selector.scoring_version}, this code of {SCORING_VERSION}: "
            "detect it again"
        )
    require_that_heads_exist(selector.heads, AutoConfig.from_pretrained(pinned.directory, local_files_only=True))
    engine = load_engine(
        pinned.directory,
        numeric_class=selector.numeric_class,
        max_tokens=selector.max_tokens,
        device=_device(device),
        memory=None,  # all of this is said as detection says it, or the model would be loaded again
        model_digest=None,
    )
    chunks = engine.score(selector, _checked(texts, doc_ids), n_bytes=n_bytes or 0, on_progress=on_progress)
    return (score for chunk in chunks for score in chunk)


def _sentences(sentences: Iterable[str]) -> list[str]:
    """The sentences. Raises `ValueError` naming the first that is none."""
    if isinstance(sentences, str):
        raise ValueError("sentences: one string, where a list of them is needed")
    listed = list(sentences)
    for number, sentence in enumerate(listed):
        if not isinstance(sentence, str):
            raise ValueError(f"sentences[{number}] is {type(sentence).__name__}, not a string")
    return listed


def _checked(texts: Iterable[str], doc_ids: Iterable[str] | None) -> Iterator[Text]:
    """The texts with their ids. Raises `ValueError` naming the first that cannot be scored."""
    ids = None if doc_ids is None else iter(doc_ids)
    number = -1
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{number}] is {type(text).__name__}, not a string")
        if not text:
            raise ValueError(f"texts[{number}] is empty: it has no tokens to predict")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"texts[{number}] is not valid UTF-8: {error}") from None
        doc_id = str(number) if ids is None else next(ids, None)
        if doc_id is None:
            raise ValueError(f"doc_ids: only {number}, fewer than texts")
        yield Text(doc_id, text)
    if ids is not None and next(ids, None) is not None:
        raise ValueError(f"doc_ids: more than the {number + 1} texts")


def _probes(
    directory: Path, sentences: Sequence[str], *, n_probes: int, probe_tokens: int | None, seed: int
) -> list[Probe]:
    """Probes as long as asked for; if that is left open, of 512 tokens or of the next power of two that holds one."""
    if probe_tokens is not None:
        return probes_for_model(directory, sentences, n_probes=n_probes, probe_tokens=probe_tokens, seed=seed)
    return probes_that_fit(directory, sentences, n_probes=n_probes, at_least=SMALL.probe_tokens, seed=seed)


def _settings(
    directory: Path, *, head_fraction: float, mask: Mask, max_tokens: int, numeric_class: NumericClass
) -> HeadSettings:
    """The window is bounded here, so that detecting and scoring ask for one and the same engine."""
    HeadSettings(head_fraction, mask, max_tokens, numeric_class)
    window = bounded_window(max_tokens, AutoConfig.from_pretrained(directory, local_files_only=True))
    return HeadSettings(head_fraction, mask, window, numeric_class)


def _device(device: torch.device | str | None) -> torch.device:
    try:
        return choose_device() if device is None else torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r}: torch knows no such device: {error}") from error


class _PinnedHere:
    """A model's files as pinning leaves them, on this machine, and their digests."""

    def __init__(self, directory: Path, digests: ModelDigests) -> None:
        self.directory, self.digests = directory, digests


def _pinned(model: Model) -> _PinnedHere:
    source = os.fspath(model)
    return _pinned_once(source, _stamp(Path(os.path.expanduser(source))))


@lru_cache(maxsize=8)
def _pinned_once(source: str, _: object) -> _PinnedHere:
    """Pinned once per process, unless its files change: a directory by links, a GGUF file by its conversion."""
    if source.endswith(".gguf"):
        kept = Root.at(CONVERTED)
        pinned = pin_under(kept, source)
        directory = local_directory(kept, pinned.directory, cache=CONVERTED.expanduser())
        return _PinnedHere(directory, pinned.digests)
    directory = Path(tempfile.mkdtemp(dir=scratch_of_process("links")))
    return _PinnedHere(directory, pin_model(source, directory, link=True))


def _stamp(path: Path) -> object:
    """Changes when a file of the model does."""
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    return tuple((file.name, *_which_and_when(file)) for file in files)


def _which_and_when(file: Path) -> tuple[int, int, int, int]:
    stat = os.stat(file) if file.exists() else os.lstat(file)  # a link to nowhere is for pinning to refuse
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino
