"""What a process that is to be killed has from its first instant: everything imported, the model in memory.

Imported by the server from which such processes are forked, and there alone. No thread may be running in it by then.
"""

import os

import boto3  # noqa: F401
import duckdb  # noqa: F401
import matplotlib.pyplot as plt  # noqa: F401
import torch

from attninf_assets_tests.support.planted_model import planted_model
from attninf_assets_tests.torture import killing  # noqa: F401
from benchmarks.rigs.made_up_text import tiny_tokenizer

os.environ["TOKENIZERS_PARALLELISM"] = "false"
torch.set_num_threads(1)
planted_model()
tiny_tokenizer()
