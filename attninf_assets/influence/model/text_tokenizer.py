"""The one place where text meets a tokenizer. Text is data: a control token written out in it is tokenized as the
characters it consists of.

Special tokens are those that a tokenizer marks as special: BOS, EOS, `<|im_start|>`, and in GGUF and SentencePiece
files the control tokens. Tokens that were added and are not special, such as `<think>`, are vocabulary: they are found
in text, as llama.cpp finds them with `parse_special=False`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer
from transformers import AutoTokenizer

FAST_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer as texts meet it: nothing is added to a text, and nothing in it is taken for a special token."""

    name: str  # of its class, for messages
    encode_batch: Callable[[Sequence[str]], list[list[int]]]  # the same as `encode` one by one
    special_tokens: Mapping[str, int]  # what no text can say, with their ids
    unknown_token: int | None  # stands for what the vocabulary lacks, in any text; may be one of the special ids
    start_token_name: str  # "bos", or "eos" where there is no BOS: which token opens every window
    start_token: int
    # the same tokens, and the character of the text behind each one's last; None where the tokenizer does not tell
    encode_with_ends: Callable[[str], tuple[list[int], list[int]]] | None = None

    @classmethod
    def of(cls, tokenizer: Any, *, where: object = "") -> Self:
        """A tokenizer of transformers, fast or slow, as texts meet it; `where` is its place, for messages.

        Raises `ValueError` where it has neither BOS nor EOS.
        """
        name, start_tokens = type(tokenizer).__name__, {"bos": tokenizer.bos_token, "eos": tokenizer.eos_token}
        if tokenizer.is_fast:
            return cls.from_json(tokenizer.backend_tokenizer.to_str(), start_tokens, name=name, where=where or name)

        def encode_batch(texts: Sequence[str]) -> list[list[int]]:
            how = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
            return tokenizer(list(texts), **how)["input_ids"] if texts else []

        start = _start_token(start_tokens, tokenizer.convert_tokens_to_ids, where or name)
        special = {token: tokenizer.convert_tokens_to_ids(token) for token in tokenizer.all_special_tokens}
        special |= {token.content: id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        return cls(name, encode_batch, special, tokenizer.unk_token_id, *start)

    @classmethod
    def from_json(cls, serialized: str, start_tokens: Mapping[str, str | None], *, name: str, where: object) -> Self:
        """The tokenizer that a tokenizer.json holds, with its BOS and EOS. Raises `ValueError` as `of` does."""
        backend = Tokenizer.from_str(serialized)
        start = _start_token(start_tokens, backend.token_to_id, where)
        content = json.loads(serialized)
        model = content["model"]
        special = {token["content"]: token["id"] for token in content["added_tokens"] if token["special"]}
        unknown = backend.token_to_id(model["unk_token"]) if model.get("unk_token") else model.get("unk_id")
        if (changed := _without_ways_to(special, content)) is not None:
            backend = Tokenizer.from_str(json.dumps(changed))
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        backend.post_processor = None  # adds nothing to texts here, and takes the whitespace out of tokens' places

        def encode_batch(texts: Sequence[str]) -> list[list[int]]:
            return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

        def encode_with_ends(text: str) -> tuple[list[int], list[int]]:
            encoding = backend.encode(text, add_special_tokens=False)
            return encoding.ids, [end for _, end in encoding.offsets]

        return cls(name, encode_batch, special, unknown, *start, encode_with_ends)

    def encode(self, text: str) -> list[int]:
        """The text's own tokens."""
        return self.encode_batch([text])[0]

    def unsplit_token(self) -> str | None:
        """A special token that texts can say all the same; None where there is none, as it should be.

        The one that stands for what the vocabulary lacks may be said by characters that it lacks.
        """
        for token, id_ in self.special_tokens.items():
            for text in (token, f"a{token}b", f" {token} "):
                if id_ in self.encode(text) and not (id_ == self.unknown_token and self._lacks_a_character_of(text)):
                    return token
        return None

    def _lacks_a_character_of(self, text: str) -> bool:
        return any(self.unknown_token in ids for ids in self.encode_batch(list(text)))


def load_tokenizer(directory: Path) -> TextTokenizer:
    """The tokenizer of a pinned directory; raises `ValueError` where it has neither BOS nor EOS."""
    if not (directory / FAST_FILE).exists():
        slow = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        return TextTokenizer.of(slow, where=directory)
    config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    return TextTokenizer.from_json(
        (directory / FAST_FILE).read_text(encoding="utf-8"),
        {name: config.get(f"{name}_token") for name in ("bos", "eos")},
        name=config["tokenizer_class"],
        where=directory,
    )


def _start_token(
    start_tokens: Mapping[str, str | None], id_of: Callable[[str], int | None], where: object
) -> tuple[str, int]:
    for name in ("bos", "eos"):
        token = start_tokens[name]
        if token is not None and (id_ := id_of(token)) is not None:
            return name, id_
    raise ValueError(f"{where}: the tokenizer has neither a BOS nor an EOS token to open a document with")


def _without_ways_to(special: Mapping[str, int], content: dict[str, Any]) -> dict[str, Any] | None:
    """The content of a tokenizer.json, its model robbed of the ways in which characters become a special token; None
    where it has none.

    SentencePiece itself keeps control pieces out of what it looks for in texts. The tokenizers library does not: a
    Unigram model matches every piece of its vocabulary, and a BPE model merges whatever was converted to merges.
    """
    model = content["model"]
    if model["type"] == "Unigram":
        pieces = [["" if piece in special else piece, score] for piece, score in model["vocab"]]
        if pieces == model["vocab"]:
            return None
        # An empty piece is matched nowhere and keeps its id; the token added for it would get another.
        added = [t for t in content["added_tokens"] if not (t["special"] and t["id"] < len(pieces))]
        return content | {"model": model | {"vocab": pieces}, "added_tokens": added}
    if model["type"] == "BPE":
        prefix = len(model.get("continuing_subword_prefix") or "")
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        merges = [[left, right] for left, right in pairs if left + right[prefix:] not in special]
        return None if len(merges) == len(pairs) else content | {"model": model | {"merges": merges}}
    return None
