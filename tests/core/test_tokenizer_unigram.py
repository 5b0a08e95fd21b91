"""Unigram tokenizers against SentencePiece and Hugging Face, on models trained here."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollamacore.errors import InvalidFileError
from ollamacore.tokenizer import Tokenizer
from tests.core.unigram import reference_unigram, train

DATA = Path(__file__).parent.parent / "data" / "tokenizer"
PROSE, CODE, MIXED = ((DATA / f"{name}.txt").read_bytes().decode() for name in ("prose", "code", "mixed"))
#: remove_extra_whitespaces, add_space_prefix
SPACES = [(False, False), (False, True), (True, False), (True, True)]


@cache
def trained(trim, prefix, byte_fallback=False):
    lines = PROSE.splitlines() + CODE.splitlines()
    processor, metadata = train(lines, trim=trim, prefix=prefix, byte_fallback=byte_fallback)
    return Tokenizer.from_gguf(metadata), processor, metadata


def encode(tokens, text):
    return tokens.encode(text, add_special=False, parse_special=False)


@pytest.mark.parametrize(("trim", "prefix"), SPACES)
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_ids_equal_sentencepiece_on_prose_and_code(trim, prefix, byte_fallback):
    tokens, processor, _ = trained(trim, prefix, byte_fallback)
    for text in (PROSE, CODE, "", " ", "  a  b  ", "\n\n", "▁ ▁", "ﬁ Å ｶﾞ ﷺ ²"):
        assert encode(tokens, text) == processor.encode(text)


@pytest.mark.parametrize(("trim", "prefix"), SPACES)
def test_ids_equal_hugging_face_on_mixed_text(trim, prefix):
    tokens, processor, metadata = trained(trim, prefix)
    reference = reference_unigram(metadata)
    for text in [MIXED, *(MIXED[start : start + 211] for start in range(0, len(MIXED), 499))]:
        assert encode(tokens, text) == reference.encode(processor.normalize(text)).ids


@settings(max_examples=150)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_ids_equal_hugging_face_on_any_text(text):
    for trim, prefix in SPACES:
        tokens, processor, metadata = trained(trim, prefix)
        assert encode(tokens, text) == reference_unigram(metadata).encode(processor.normalize(text)).ids


def test_eos_is_added_by_default():
    tokens, _, _ = trained(True, True)
    ids = tokens.encode("the")
    assert ids[-1] == tokens.eos
    assert tokens.decode(ids) == "the"


def test_long_run_of_one_character():
    tokens, _, _ = trained(False, False, True)
    for unit in ("a", "é", " ", "字"):
        text = unit * 100_000
        assert tokens.decode(tokens.encode(text)) == text


BAD = {
    "charsmap empty but for its size": ([4, 0, 0, 0], "charsmap of 4 bytes is cut short"),
    "charsmap of three bytes": ([1, 0, 0], "charsmap of 3 bytes is cut short"),
    "charsmap table over the end": ([255, 255, 255, 255, 0, 0], "is cut short"),
    "charsmap table of odd size": ([2, 0, 0, 0, 0, 0, 0, 0], "is cut short"),
    "charsmap text without end": ([4, 0, 0, 0, 0, 0, 0, 0, 65], "a text without end"),
    "charsmap of numbers": ([300], "not an array of bytes"),
    "charsmap of strings": (["x"], "not an array of bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_charsmap_is_refused(case):
    value, message = BAD[case]
    _, _, metadata = trained(True, True)
    with pytest.raises(InvalidFileError, match=message):
        Tokenizer.from_gguf(metadata.but(precompiled_charsmap=value))


@settings(max_examples=100)
@given(st.data())
def test_any_charsmap_is_refused_or_harmless(data):
    _, _, metadata = trained(True, True)
    charsmap = list(metadata.metadata["tokenizer.ggml.precompiled_charsmap"])
    for _ in range(20):
        charsmap[data.draw(st.integers(0, len(charsmap) - 1))] = data.draw(st.integers(0, 255))
    try:
        tokens = Tokenizer.from_gguf(metadata.but(precompiled_charsmap=charsmap))
    except InvalidFileError:
        return
    tokens.encode("ﬁ Å ｶﾞ ﷺ ² plain")
