"""A self-check that passed is remembered: of the same model on the same device with the same code it is not repeated.

A record is believed only if it is whole and says word for word what it was made from. Anything else, and any other
version of torch, transformers or this package, and the check is made anew. Delete the record to forget it.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import torch
import transformers

_LOG = logging.getLogger(__name__)
_INFLUENCE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Verdict:
    """What a self-check decided: which ways to compute are used. The same verdict gives the same numbers, bit by bit.

    Compiled kernels are the exception: what torch.compile makes of norms may depend on the shapes it meets first.
    """

    share_trunk: bool
    kernel: str
    fused: bool
    onednn: bool

    @classmethod
    def from_json(cls, written: Any) -> Self:
        """The verdict that `asdict` wrote; raises `ValueError` naming what is missing, unknown or of another type."""
        kinds = {"share_trunk": bool, "kernel": str, "fused": bool, "onednn": bool}
        if not isinstance(written, dict) or {name: type(value) for name, value in written.items()} != kinds:
            raise ValueError(f"{written!r} is no verdict of a self-check; it has {', '.join(kinds)}")
        return cls(**written)


class SelfCheckRecord:
    """The place for the verdict on one model; `of` says which model, device, class and window.

    It lies in the directory `memory`, under a digest of `of` and of everything else that the verdict hangs on.
    """

    def __init__(self, memory: Path, *, of: Mapping[str, str | int]) -> None:
        self._of = {**of, **surroundings()}
        self.file = memory / f"{_sha256(self._of)[:32]}.json"

    def read(self) -> Verdict | None:
        """The verdict; None where there is none, or what is there cannot be believed, which is logged."""
        try:
            written = self.file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _LOG.warning("%s: cannot be read, so the self-check is repeated: %s", self.file, error)
            return None
        try:
            record = json.loads(written)
            verdict = Verdict.from_json(record["verdict"])
            if record != self._record(verdict):
                raise ValueError("it is not of this model, device and code, or not as it was written")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            _LOG.warning("%s: not believed, so the self-check is repeated: %r", self.file, error)
            return None
        return verdict

    def write(self, verdict: Verdict) -> None:
        """Remember a verdict, whole or not at all; where that cannot be, the check is repeated next time."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.file.parent, suffix=".tmp", delete=False) as stream:
                json.dump(self._record(verdict), stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(stream.name, self.file)
        except OSError as error:
            _LOG.warning("%s: cannot be written, so the self-check is repeated next time: %s", self.file, error)

    def _record(self, verdict: Verdict) -> dict[str, Any]:
        content = {"of": self._of, "verdict": asdict(verdict)}
        return {**content, "sha256": _sha256(content)}


@cache
def surroundings() -> dict[str, str]:
    """What else a verdict hangs on: libraries, how torch was built and what it uses of the CPU, and our own code."""
    return {
        "torch": torch.__version__,
        "torch_build": hashlib.sha256(torch.__config__.show().encode()).hexdigest(),  # says the CPU's capability, too
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "transformers": transformers.__version__,
        "code": _digest_of_code(),
    }


def _digest_of_code() -> str:
    digest = hashlib.sha256()
    for file in sorted(_INFLUENCE.rglob("*.py")):
        digest.update(f"{file.relative_to(_INFLUENCE)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
