"""Made-up sentences and a tiny tokenizer trained on them: text that needs no file and no model."""

import random
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from attninf_assets.influence.model.text_tokenizer import TextTokenizer

VOCAB = 400
_WHO = (
    "The old keeper",
    "A young chemist",
    "My neighbour",
    "Their captain",
    "Some careful reader",
    "Her second cousin",
)
_DID = ("measured", "painted", "forgot", "described", "sold", "repaired", "weighed", "counted")
_WHAT = ("a bright lamp", "the broken clock", "seven maps", "an iron bridge", "every letter", "the heavy door")
_WHERE = ("behind the mill", "near the river", "under a quiet sky", "in the north tower", "beside the road")


@cache
def sentences() -> tuple[str, ...]:
    """Eighty distinct plain sentences of eight to twelve words, a small corpus."""
    rng = random.Random(7)
    return tuple(
        f"{rng.choice(_WHO)} {rng.choice(_DID)} {rng.choice(_WHAT)} {rng.choice(_WHERE)} on day {number}."
        for number in range(80)
    )


@cache
def tiny_tokenizer(*, bos: bool = True) -> Any:
    """A byte-level BPE of at most `VOCAB` tokens; `bos=False` gives one that has only an EOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(), trainer)
    if bos:  # as Llama's tokenizer does, unless told not to
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"eos_token": "</s>", "pad_token": "<pad>"} | ({"bos_token": "<s>"} if bos else {})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@cache
def tiny_text_tokenizer(*, bos: bool = True) -> TextTokenizer:
    """`tiny_tokenizer` as texts meet it."""
    return TextTokenizer.of(tiny_tokenizer(bos=bos))
