"""How fast a device was, kept for the next process: a guess of what work will take, which decides nothing else."""

import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

_LOG = logging.getLogger(__name__)


class RememberedRate:
    """The useful FLOP/s of one kind of work on one device, in the directory `memory`; nothing is kept without one.

    `of` says of which work, model, device and class. Another version of torch is another rate. A file that holds no
    rate counts as none.
    """

    def __init__(self, memory: Path | None, *, of: Mapping[str, str | int]) -> None:
        self._of = {**of, "torch": torch.__version__}
        digest = hashlib.sha256(json.dumps(self._of, sort_keys=True).encode()).hexdigest()[:16]
        self._file = None if memory is None else memory / f"{digest}.json"

    def read(self) -> float | None:
        """The rate; None where none is remembered."""
        if self._file is None:
            return None
        try:
            rate = float(json.loads(self._file.read_bytes())["flops_per_second"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            _LOG.warning("%s: no rate can be read from it, so it is measured: %r", self._file, error)
            return None
        return rate if math.isfinite(rate) and rate > 0 else None

    def write(self, flops_per_second: float) -> None:
        """Remember the rate; where that cannot be, it is measured next time."""
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._file.parent, suffix=".tmp", delete=False) as stream:
                json.dump(self._of | {"flops_per_second": flops_per_second}, stream, indent=1)
            os.replace(stream.name, self._file)
        except OSError as error:
            _LOG.warning("%s: cannot be written, so the rate is measured next time: %s", self._file, error)


NOT_REMEMBERED = RememberedRate(None, of={})
