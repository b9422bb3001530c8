"""What every process of `processes` has from its first instant: all that is slow to import, and a model in memory.

Imported by the server from which such processes are forked, and there alone. No thread may be running in it by then.
"""

import os

import boto3  # noqa: F401
import duckdb  # noqa: F401
import gguf  # noqa: F401
import matplotlib.pyplot as plt  # noqa: F401
import torch
import torch._dynamo

import attninf_assets.definitions  # noqa: F401
from attninf_assets_tests.support.planted_model import planted_model
from benchmarks.rigs.made_up_text import tiny_tokenizer

os.environ["TOKENIZERS_PARALLELISM"] = "false"
torch.set_num_threads(1)
planted_model()
tiny_tokenizer()
