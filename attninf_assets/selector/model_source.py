"""The form of a model's name on the hub, and the digests by which models are told apart."""

import re
from dataclasses import dataclass

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+@[\w./-]+")  # org/name@revision


@dataclass(frozen=True)
class ModelDigests:
    """The digests of a pinned model and its tokenizer, which do not depend on where it lies."""

    model: str  # sha256 over the weight files, the architecture's config and the tokenizer: names the directory
    tokenizer: str
