"""The numeric class of a selector for which none was asked: chosen once, when its heads are found, and kept with it.

The class is part of the fingerprint. So it is that of the selector in use, as long as the model is the same, and not
that of whichever machine happens to detect heads again: else a fleet of unlike machines would rescore for ever.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from attninf_assets.influence.acceleration.onednn import has_fast_bfloat16
from attninf_assets.influence.document_score import Text
from attninf_assets.influence.engine import load_engine
from attninf_assets.influence.model.numeric_class import NumericClass
from attninf_assets.influence.probes import Probe
from attninf_assets.influence.selector import Selector
from attninf_assets.selector.model_source import ModelDigests
from attninf_assets.selector.stored import current_selector, has_selector
from attninf_assets.store.root import Root

RANKING_NOISE = 0.04  # of the scores' spread: about a rank correlation of .999
_N_DOCUMENTS, _SENTENCES = 32, 5  # made of the probes' sentences: some 3,000 tokens, twice
_LOG = logging.getLogger(__name__)


def class_in_use(root: Root, digests: ModelDigests, device: torch.device) -> NumericClass | None:
    """The class of the selector in use, for detection on a CPU; None where it is another model's, or there is none.

    On CUDA the default is bfloat16 whatever was before, and float8 is nobody's default.
    """
    if device.type != "cpu" or not has_selector(root):
        return None
    try:
        selector = current_selector(root)
    except ValueError as error:
        _LOG.warning("the numeric class is chosen anew: %s", error)
        return None
    return (
        selector.numeric_class
        if selector.model_digest == digests.model and selector.numeric_class != "float8"
        else None
    )


def multiplies_16_bits(device: torch.device) -> bool:
    """Whether the device is a CPU on which bfloat16 is faster than float32: it has AVX512-BF16 or AMX."""
    return has_fast_bfloat16(device)


def keeps_the_ranking(selector: Selector, probes: Sequence[Probe], *, directory: Path, device: torch.device) -> bool:
    """Whether the selector scores documents in its class as in float32, to within `RANKING_NOISE`; says so in the log.

    The documents are made of the probes' sentences, which are the corpus's own.
    """
    documents = list(islice(_documents(probes), _N_DOCUMENTS))
    found, expected = (
        _scores(selector, documents, numeric_class, directory=directory, device=device)
        for numeric_class in (selector.numeric_class, "float32")
    )
    noise = ranking_noise(found, expected)
    kept = noise <= RANKING_NOISE
    _LOG.info(
        "%s moves the scores of %d documents by %.2g of their spread (at most %g): it is %s",
        selector.numeric_class,
        len(documents),
        noise,
        RANKING_NOISE,
        "the default" if kept else "not used",
    )
    return kept


def ranking_noise(found: np.ndarray, expected: np.ndarray) -> float:
    """The standard deviation of the scores' differences over that of the scores; infinite where there is no number.

    Between two rankings by noisy and exact values it is r: Spearman's correlation is about 1 - r²/2.
    """
    spread = float(expected.std())
    noise = float((found - expected).std()) / spread if spread > 0 else float("inf")
    return noise if np.isfinite(noise) else float("inf")


def _documents(probes: Sequence[Probe]) -> Iterator[str]:
    """Some sentences of one probe each, from every probe first."""
    sentences = [re.findall(r'": "([^"]+)"', probe.text) for probe in probes]
    for first in range(0, max(map(len, sentences), default=0), _SENTENCES):
        for of_probe in sentences:
            if document := " ".join(of_probe[first : first + _SENTENCES]):
                yield document


def _scores(
    selector: Selector,
    documents: Sequence[str],
    numeric_class: NumericClass,
    *,
    directory: Path,
    device: torch.device,
) -> np.ndarray:
    engine = load_engine(directory, numeric_class=numeric_class, max_tokens=selector.max_tokens, device=device)
    texts = [Text(str(number), document) for number, document in enumerate(documents)]
    chunks = engine.score(selector, texts, n_bytes=sum(len(document.encode()) for document in documents))
    return np.array([score.score for chunk in chunks for score in chunk], dtype=float)
