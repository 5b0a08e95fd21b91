"""SentencePiece unigram models, trained for the tests, and the reference tokenizers for them."""

import sentencepiece
from tokenizers import Tokenizer as Reference
from tokenizers import models

from tests.core.vocabularies import BYTE, CONTROL, NORMAL, UNKNOWN, Metadata


def _read_fields(data):
    """(number, value) of the fields of a protocol buffer."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        size = {0: 0, 1: 8, 5: 4}.get(key & 7)
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = varint() if size is None else size
            yield key >> 3, data[at : at + size]
            at += size


def train(lines, *, trim, prefix, byte_fallback=False):
    """(processor, metadata) of a unigram model with the normaliser of T5 and XLM-R."""
    model = bytearray()

    class Writer:
        def write(self, data):
            model.extend(data)

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=Writer(),
        model_type="unigram",
        vocab_size=1200,
        byte_fallback=byte_fallback,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=trim,
        normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=bytes(model))
    ids = range(processor.get_piece_size())
    kinds = [
        UNKNOWN
        if processor.is_unknown(id)
        else CONTROL
        if processor.is_control(id)
        else BYTE
        if processor.is_byte(id)
        else NORMAL
        for id in ids
    ]
    (normalizer,) = (value for number, value in _read_fields(bytes(model)) if number == 3)
    charsmap = dict(_read_fields(normalizer))[2]
    metadata = Metadata({
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": [processor.id_to_piece(id) for id in ids],
        "tokenizer.ggml.scores": [processor.get_score(id) for id in ids],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.precompiled_charsmap": list(charsmap),
        "tokenizer.ggml.add_space_prefix": prefix,
        "tokenizer.ggml.remove_extra_whitespaces": trim,
        "tokenizer.ggml.unknown_token_id": processor.unk_id(),
        "tokenizer.ggml.bos_token_id": processor.bos_id(),
        "tokenizer.ggml.eos_token_id": processor.eos_id(),
    })
    return processor, metadata


def reference_unigram(metadata):
    """The Hugging Face model with the vocabulary of a file, for text that is normalised already.

    SentencePiece adds scores as 32-bit floats, so that ways of exactly equal score may come out either way; this
    one adds doubles.
    """
    tokens, scores = (metadata.metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores"))
    unknown = metadata.metadata["tokenizer.ggml.unknown_token_id"]
    return Reference(models.Unigram(list(zip(tokens, scores, strict=True)), unknown, byte_fallback=False))
