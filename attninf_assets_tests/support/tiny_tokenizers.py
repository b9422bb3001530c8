"""Tiny tokenizers of every kind that is loaded, as files and as transformers loads them."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import transformers as tf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.convert_slow_tokenizer import import_protobuf

from attninf_assets_tests.support.tiny_gguf import tiny_gguf
from benchmarks.rigs.made_up_text import tiny_tokenizer

CONTROL = ("<|im_start|>", "<|endoftext|>", "[INST]")  # special tokens that are added beyond the vocabulary
VOCABULARY = "<think>"  # an added token that is not special
_LETTERS = "abcdefghijklmnopqrstuvwxyz<>/|_[]ABCINST.,'0123456789"
_WORDS = ("▁the", "▁old", "▁keeper", "ing", "th", "▁t", "▁a", "ab", "</", "s>", "<s", "unk", "im")
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # kinds of pieces
_Piece = tuple[str, float, int]  # with its score and its kind
_BYTES = [f"<0x{number:02X}>" for number in range(256)]


_LLAMAS = [("<unk>", 0.0, _UNKNOWN), ("<s>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL)]
_T5S = [("<pad>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL), ("<unk>", 0.0, _UNKNOWN)]


def _pieces(*, byte_fallback: bool, first: Sequence[_Piece] = _LLAMAS) -> list[_Piece]:
    """As in a SentencePiece file: unknown and control pieces first, then bytes, pieces, single characters."""
    pieces = [*first]
    pieces += [(piece, 0.0, _BYTE) for piece in _BYTES] if byte_fallback else []
    pieces += [(piece, -1.0 - number / 8, _NORMAL) for number, piece in enumerate(_WORDS)]
    return pieces + [(piece, -9.0 - number / 64, _NORMAL) for number, piece in enumerate(f"▁{_LETTERS}")]


def sentencepiece_file(path: Path, pieces: Sequence[_Piece], *, unigram: bool, byte_fallback: bool) -> None:
    """Write a SentencePiece model file of these pieces."""
    proto = import_protobuf("").ModelProto()
    for piece, score, kind in pieces:
        proto.pieces.add(piece=piece, score=score, type=kind)
    trainer = proto.trainer_spec
    trainer.model_type, trainer.byte_fallback = (1 if unigram else 2), byte_fallback
    ids = {piece: number for number, (piece, *_) in enumerate(pieces)}
    trainer.unk_id, trainer.bos_id = ids["<unk>"], ids.get("<s>", -1)
    trainer.eos_id, trainer.pad_id = ids["</s>"], ids.get("<pad>", -1)
    proto.normalizer_spec.name, proto.normalizer_spec.add_dummy_prefix = "identity", True
    proto.normalizer_spec.remove_extra_whitespaces = False
    path.write_bytes(proto.SerializeToString())


def _with_added(tokenizer: Any) -> Any:
    tokenizer.add_special_tokens({"additional_special_tokens": list(CONTROL)}, replace_extra_special_tokens=False)
    tokenizer.add_tokens([AddedToken(VOCABULARY, special=False, normalized=False)])
    return tokenizer


def _byte_level() -> Any:
    return _with_added(tf.PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer().backend_tokenizer, **_NAMES))


_NAMES = {"bos_token": "<s>", "eos_token": "</s>"}


def _gguf(directory: Path, pieces: Sequence[_Piece] | None = None) -> Any:
    tiny_gguf(directory / "tiny.gguf", pieces=pieces)
    return tf.AutoTokenizer.from_pretrained(directory, gguf_file="tiny.gguf")


def _unigram_json(*, byte_fallback: bool) -> Any:
    """As `tokenizer.json` files converted from SentencePiece are: control pieces among the others, with score 0."""
    pieces = [(piece, score) for piece, score, _ in _pieces(byte_fallback=byte_fallback)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=byte_fallback))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **_NAMES)
    return _with_added(tokenizer)


def _bpe_json_that_merges_to_control() -> Any:
    """As Llama's converted files are: merges for every way to make a piece, control pieces among them."""
    pieces = [piece for piece, *_ in _pieces(byte_fallback=True)]
    ids = {piece: number for number, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    assert ("</", "s>") in merges
    backend = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **_NAMES)
    return _with_added(tokenizer)


def _sentencepiece_bpe(directory: Path) -> Any:
    sentencepiece_file(directory / "tokenizer.model", _pieces(byte_fallback=True), unigram=False, byte_fallback=True)
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **_NAMES}))
    return tf.LlamaTokenizer.from_pretrained(directory)


def _sentencepiece_unigram(directory: Path) -> Any:
    pieces = _pieces(byte_fallback=False, first=_T5S)
    sentencepiece_file(directory / "spiece.model", pieces, unigram=True, byte_fallback=False)
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return tf.T5Tokenizer.from_pretrained(directory, extra_ids=0)


def _slow(directory: Path) -> Any:
    """One of the few that transformers still runs in Python: BPE over words, without a fallback for what it lacks."""
    pieces = ["<unk>", "<s>", "</s>", *(f"{c}@@" for c in _LETTERS), *_LETTERS, "th@@", "the"]
    (directory / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (directory / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n\n")
    config = {"tokenizer_class": "CTRLTokenizer", "unk_token": "<unk>", **_NAMES}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return tf.CTRLTokenizer.from_pretrained(directory)


def _in_a_directory(make: Callable[[Path], Any]) -> Any:
    with TemporaryDirectory() as directory:
        return make(Path(directory))


KINDS: Mapping[str, Callable[[], Any]] = {
    "byte-level BPE": _byte_level,
    "GGUF": lambda: _in_a_directory(_gguf),
    "GGUF of a SentencePiece file": lambda: _in_a_directory(lambda there: _gguf(there, _pieces(byte_fallback=True))),
    "Unigram": lambda: _unigram_json(byte_fallback=False),
    "Unigram with byte fallback": lambda: _unigram_json(byte_fallback=True),
    "BPE that merges to control pieces": _bpe_json_that_merges_to_control,
    "slow": lambda: _with_added(_in_a_directory(_slow)),
}

# Without a tokenizer.json transformers reads these with the package `sentencepiece`, which nothing here installs.
SENTENCEPIECE_KINDS: Mapping[str, Callable[[], Any]] = {
    "SentencePiece file, BPE": lambda: _with_added(_in_a_directory(_sentencepiece_bpe)),
    "SentencePiece file, Unigram": lambda: _with_added(_in_a_directory(_sentencepiece_unigram)),
}


@cache
def tokenizer_of_kind(kind: str) -> Any:
    """A tokenizer of transformers, of one of the kinds above."""
    return {**KINDS, **SENTENCEPIECE_KINDS}[kind]()
