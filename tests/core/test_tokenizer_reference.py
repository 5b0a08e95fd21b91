"""Token ids against other implementations: Hugging Face tokenizers, SentencePiece, and llama.cpp (golden data).

The references run on vocabularies trained here on the mixed text, and on those of real models.
"""

import hashlib
import json
from array import array
from functools import cache
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference
from tokenizers import models, pre_tokenizers, trainers

from ollamacore.gguf import GGUFFile
from ollamacore.tokenizer import Tokenizer
from tests.core.vocabularies import (
    REFERENCE_PRETOKENIZERS,
    Metadata,
    reference_bpe,
    sentencepiece_metadata,
)

DATA = Path(__file__).parent.parent / "data" / "tokenizer"
GOLDENS = json.loads((DATA / "goldens.json").read_text())
MIXED = (DATA / "mixed.txt").read_bytes().decode()
PRE = sorted(REFERENCE_PRETOKENIZERS)

#: Text that is hard to cut: the characters that decide the rules, in any order, among words of any script.
hard_text = st.lists(
    st.one_of(
        st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\u3000", "\x85", "\u2028", "'", "'s", "'LL", "'Ve", "'ſ"]),
        st.sampled_from(["word", "Wörter", "字", "é", "e\u0301", "1", "12345", "½", "Ⅷ", "!", "...", "_", "▁"]),
        st.sampled_from(["🚀", "👩🏿\u200d🚀", "\u200d", "\u200b"]),
        st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]), max_size=4),
    ),
    max_size=30,
).map("".join)


def assert_same(tokens, reference_ids, text):
    ids = tokens.encode(text, add_special=False, parse_special=False)
    if ids != reference_ids:
        at = next(i for i, (a, b) in enumerate(zip(ids, reference_ids, strict=False)) if a != b)
        got = [tokens.token_text(id) for id in ids[at - 3 : at + 5]]
        expected = [tokens.token_text(id) for id in reference_ids[at - 3 : at + 5]]
        pytest.fail(f"token {at}: {got} instead of {expected}")


# ---- byte-level BPE on a vocabulary trained here ----


@cache
def trained_bpe(pre):
    """Tokenizer and reference on one vocabulary of 4,000 tokens; some lack their merge, so `pre` decides on them."""
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    source = Reference(models.BPE())
    source.pre_tokenizer = REFERENCE_PRETOKENIZERS[pre]
    source.train_from_iterator(MIXED.splitlines(keepends=True), trainer)
    model = json.loads(source.to_str())["model"]
    merges = [" ".join(pair) for i, pair in enumerate(model["merges"]) if i % 9 != 8]
    metadata = Metadata({
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": sorted(model["vocab"], key=model["vocab"].get),
        "tokenizer.ggml.merges": merges,
    })
    return Tokenizer.from_gguf(metadata), reference_bpe(metadata.metadata, pre)


@pytest.mark.parametrize("pre", PRE)
def test_bpe_equals_hugging_face_on_mixed_text(pre):
    tokens, reference = trained_bpe(pre)
    assert_same(tokens, reference.encode(MIXED).ids, MIXED)
    assert tokens.decode(tokens.encode(MIXED)) == MIXED


@pytest.mark.parametrize("pre", PRE)
def test_bpe_equals_hugging_face_wherever_text_is_cut(pre):
    tokens, reference = trained_bpe(pre)
    for start in range(0, len(MIXED), 997):
        piece = MIXED[start : start + 211]
        assert_same(tokens, reference.encode(piece).ids, piece)


@settings(max_examples=300)
@given(hard_text)
def test_bpe_equals_hugging_face_on_hard_text(text):
    for pre in PRE:
        tokens, reference = trained_bpe(pre)
        assert_same(tokens, reference.encode(text).ids, text)


# ---- SentencePiece on a vocabulary trained here ----


@cache
def trained_spm(add_space_prefix):
    model = bytearray()

    class Writer:
        def write(self, data):
            model.extend(data)

    lines = [line for name in ("prose.txt", "code.txt") for line in (DATA / name).read_text().splitlines()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=Writer(),
        model_type="bpe",
        vocab_size=3000,
        byte_fallback=True,
        add_dummy_prefix=add_space_prefix,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        minloglevel=2,
        num_threads=1,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=bytes(model))
    metadata = sentencepiece_metadata(processor, add_space_prefix=add_space_prefix)
    return Tokenizer.from_gguf(metadata), processor


@pytest.mark.parametrize("add_space_prefix", [False, True])
def test_spm_equals_sentencepiece_on_mixed_text(add_space_prefix):
    tokens, processor = trained_spm(add_space_prefix)
    assert_same(tokens, processor.encode(MIXED), MIXED)
    assert tokens.decode(tokens.encode(MIXED)) == MIXED.replace("▁", " ")


@settings(max_examples=300)
@given(hard_text.filter(bool))
def test_spm_equals_sentencepiece_on_hard_text(text):
    for add_space_prefix in (False, True):
        tokens, processor = trained_spm(add_space_prefix)
        assert_same(tokens, processor.encode(text), text)


# ---- real vocabularies ----


@cache
def real(path):
    with GGUFFile.open(path) as file:
        return Tokenizer.from_gguf(file), dict(file.metadata) | {
            key: list(file.metadata[key])
            for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")
            if key in file.metadata
        }


def check_golden(tokens, name):
    golden = GOLDENS[name]
    for parse_special, key in ((False, "plain"), (True, "special")):
        for text, expected in zip(GOLDENS["cases"]["texts"], golden[key], strict=True):
            got = tokens.encode(text, add_special=False, parse_special=parse_special)
            assert got == expected, (text, [tokens.token_text(id) for id in got])
    mixed = tokens.encode(MIXED, add_special=False, parse_special=False)
    assert len(mixed) == golden["mixed"]["count"]
    assert hashlib.sha256(array("i", mixed).tobytes()).hexdigest() == golden["mixed"]["sha256"]
    # llama.cpp takes "</s>" for an end whatever its type, here an ordinary piece or an HTML tag.
    assert tokens.end_ids == {id for id in golden["end_ids"] if tokens.token_text(id) != "</s>"}
    assert tokens.add_bos == golden["add_bos"]


@pytest.mark.model
def test_smollm2_equals_llama_cpp(smollm2_path):
    check_golden(real(smollm2_path)[0], "smollm2")


@pytest.mark.model
def test_qwen_equals_llama_cpp(qwen05_path):
    check_golden(real(qwen05_path)[0], "qwen05")


@pytest.mark.model
def test_gemma_equals_llama_cpp(gemma3_path):
    check_golden(real(gemma3_path)[0], "gemma3")


@pytest.mark.model
@pytest.mark.parametrize("pre", PRE)
def test_smollm2_vocabulary_equals_hugging_face_with_every_pretokenizer(smollm2_path, pre):
    _, metadata = real(smollm2_path)
    tokens = Tokenizer.from_gguf(Metadata(metadata).but(pre=pre))
    assert_same(tokens, reference_bpe(metadata, pre).encode(MIXED).ids, MIXED)
    assert tokens.decode(tokens.encode(MIXED)) == MIXED
