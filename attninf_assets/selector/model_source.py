"""What may be named as a selector's model, and the digests by which one model is told from another."""

import re
from dataclasses import dataclass

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+@[\w./-]+")  # org/name@revision


@dataclass(frozen=True)
class ModelDigests:
    """What a pinned model is, independent of where it lies."""

    model: str  # sha256 over the weight files, the architecture's config and the tokenizer: names the directory
    tokenizer: str
