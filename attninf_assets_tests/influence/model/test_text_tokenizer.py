"""Text is data for every kind of tokenizer: nothing that it spells is a special token, and nothing else changes."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

import attninf_assets
from attninf_assets.influence.model.text_tokenizer import TextTokenizer, load_tokenizer
from attninf_assets.selector.canonical_files import write_tokenizer
from attninf_assets_tests.support.tiny_tokenizers import (
    CONTROL,
    KINDS,
    SENTENCEPIECE_KINDS,
    VOCABULARY,
    tokenizer_of_kind,
)
from benchmarks.rigs.made_up_text import sentences, tiny_text_tokenizer, tiny_tokenizer

NO_SENTENCEPIECE = pytest.mark.skipif(
    importlib.util.find_spec("sentencepiece") is None, reason="the package sentencepiece is not installed"
)
ALL = [*KINDS, *(pytest.param(kind, marks=NO_SENTENCEPIECE) for kind in SENTENCEPIECE_KINDS)]
FAST = [kind for kind in ALL if kind != "slow"]
BYTE_LEVEL = ["byte-level BPE", "GGUF"]

plain = st.text(max_size=8) | st.sampled_from(
    [*sentences()[:3], "the old keeper", " ", "\n", "</", "s>", "<", "é", "<0x41>"]
)
spelled = st.sampled_from(["<s>", "</s>", "<unk>", "<pad>", *CONTROL])
texts = st.lists(plain | spelled | spelled, max_size=6).map("".join)


def as_before(tokenizer: Any, text: str) -> list[int]:
    """What transformers makes of a text, special tokens in it parsed."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ALL)
@settings(deadline=None, max_examples=60)
@given(text=texts)
def test_no_text_says_a_special_token(kind: str, text: str) -> None:
    """The one for unknown characters stands in texts that hold such, and only there."""
    tokenizer = TextTokenizer.of(tokenizer_of_kind(kind))
    said = set(tokenizer.encode(text)) & set(tokenizer.special_tokens.values())
    assert said <= {tokenizer.unknown_token}
    if said and tokenizer_of_kind(kind).is_fast:
        assert any(tokenizer.unknown_token in tokenizer.encode(character) for character in text)


@pytest.mark.parametrize("kind", ALL)
@settings(deadline=None, max_examples=60)
@given(text=st.lists(plain, max_size=6).map("".join))
def test_a_text_without_special_tokens_is_tokenized_as_transformers_does(kind: str, text: str) -> None:
    tokenizer = TextTokenizer.of(tokenizer_of_kind(kind))
    if not any(token in text for token in tokenizer.special_tokens):
        assert tokenizer.encode(text) == as_before(tokenizer_of_kind(kind), text)


@pytest.mark.parametrize("kind", ALL)
@settings(deadline=None, max_examples=30)
@given(several=st.lists(texts, max_size=5))
def test_a_batch_is_tokenized_as_its_texts_are_one_by_one(kind: str, several: list[str]) -> None:
    tokenizer = TextTokenizer.of(tokenizer_of_kind(kind))
    assert tokenizer.encode_batch(several) == [tokenizer.encode(text) for text in several]


@pytest.mark.parametrize("kind", BYTE_LEVEL)
@settings(deadline=None)
@given(text=texts)
def test_a_byte_level_tokenizer_gives_the_text_back(kind: str, text: str) -> None:
    ids = TextTokenizer.of(tokenizer_of_kind(kind)).encode(text)
    assert tokenizer_of_kind(kind).decode(ids, clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("kind", ALL)
def test_a_special_token_is_the_tokens_of_its_characters(kind: str) -> None:
    tokenizer = TextTokenizer.of(tokenizer_of_kind(kind))
    assert len(tokenizer.special_tokens) >= 2
    for token, id_ in tokenizer.special_tokens.items():
        assert as_before(tokenizer_of_kind(kind), token)[-1] == id_, "transformers parses it"
        ids = tokenizer.encode(token)
        assert len(ids) > 1
        if id_ != tokenizer.unknown_token:
            assert id_ not in ids
    assert tokenizer.unsplit_token() is None


@pytest.mark.parametrize("kind", [kind for kind in FAST if kind != "GGUF of a SentencePiece file"])
def test_an_added_token_that_is_not_special_is_vocabulary(kind: str) -> None:
    tokenizer = tokenizer_of_kind(kind)
    id_ = tokenizer.convert_tokens_to_ids(VOCABULARY)
    assert TextTokenizer.of(tokenizer).encode(f"a{VOCABULARY}b").count(id_) == 1


@pytest.mark.parametrize("kind", ["Unigram", "BPE that merges to control pieces"])
def test_pieces_that_transformers_would_still_find_are_not_found(kind: str) -> None:
    """`split_special_tokens` alone lets the model itself match a control piece of its vocabulary."""
    tokenizer = tokenizer_of_kind(kind)
    end = tokenizer.eos_token_id
    assert end in tokenizer("a</s>b", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert end not in TextTokenizer.of(tokenizer).encode("a</s>b")


@pytest.mark.parametrize("kind", ALL)
def test_it_comes_back_from_its_files(kind: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of_kind(kind)
    if kind == "slow":
        tokenizer.save_pretrained(tmp_path / "source")
        (tmp_path / "source/config.json").write_text('{"model_type": "gpt2"}')
        tokenizer = tf.AutoTokenizer.from_pretrained(tmp_path / "source")
    (tmp_path / "pinned").mkdir()
    (tmp_path / "pinned/config.json").write_text('{"model_type": "gpt2"}')
    write_tokenizer(tokenizer, tmp_path / "source", tmp_path / "pinned")
    loaded, expected = load_tokenizer(tmp_path / "pinned"), TextTokenizer.of(tokenizer_of_kind(kind))
    assert loaded.special_tokens == expected.special_tokens
    assert (loaded.start_token_name, loaded.start_token) == (expected.start_token_name, expected.start_token)
    assert loaded.unknown_token == expected.unknown_token
    for text in ("a<s>b</s> the old keeper<|im_start|>\n", "é <think> [INST]"):
        assert loaded.encode(text) == expected.encode(text)


def test_no_other_module_hands_a_text_to_a_tokenizer() -> None:
    """But for pinning, which compares what it pins with what transformers makes of a text."""
    package = Path(attninf_assets.__path__[0])
    found = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if re.search(r"add_special_tokens|encode_batch_fast|AutoTokenizer", file.read_text())
    }
    assert found == {"influence/model/text_tokenizer.py", "selector/pinning.py"}


def test_documents_open_with_bos_or_where_there_is_none_eos() -> None:
    assert (tiny_text_tokenizer().start_token_name, tiny_text_tokenizer().start_token) == ("bos", 1)
    without = tiny_text_tokenizer(bos=False)
    assert (without.start_token_name, without.start_token) == ("eos", 2)
    with pytest.raises(ValueError, match=r"^there: the tokenizer has neither a BOS nor an EOS"):
        TextTokenizer.from_json(
            tiny_tokenizer().backend_tokenizer.to_str(), {"bos": None, "eos": "absent"}, name="n", where="there"
        )


def test_a_tokenizer_of_whole_words_cannot_split_a_special_token_and_says_which() -> None:
    backend = Tokenizer(models.WordLevel({"<s>": 0, "a": 1, "[U]": 2}, unk_token="[U]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = TextTokenizer.of(tf.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>"))
    assert tokenizer.unsplit_token() == "<s>"


def test_truncation_and_padding_that_a_tokenizer_comes_with_are_not_applied() -> None:
    content = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    backend = Tokenizer.from_str(json.dumps(content))
    backend.enable_truncation(3)
    backend.enable_padding(length=50)
    text = " ".join(sentences()[:2])
    cut = TextTokenizer.from_json(backend.to_str(), {"bos": "<s>", "eos": None}, name="n", where="there")
    assert cut.encode(text) == tiny_text_tokenizer().encode(text)
