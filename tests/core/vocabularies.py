"""Small vocabularies for the tokenizer tests, and reference tokenizers built from the same data."""

from array import array

import numpy as np
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Reference

from ollamacore.errors import InvalidFileError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
MISSING = object()

PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
OTHERS = [byte for byte in range(256) if byte not in PRINTABLE]
#: byte -> the character that spells it in the GPT-2 alphabet
ALPHABET = {byte: chr(byte) for byte in PRINTABLE} | {byte: chr(256 + i) for i, byte in enumerate(OTHERS)}

_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _ENDS
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%(short)s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%(short)s"
    r"|\p{N}%(digits)s| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _ENDS
)
_QWEN35 = (
    _SHORT + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _ENDS
)
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|" + _ENDS
)
_KIMI = r"[\p{Han}]+|" + (_CASED % {"short": _SHORT + "?", "digits": "{1,3}"}).replace(r"[\r\n/]*", r"[\r\n]*")
for _letters in (r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"):
    _KIMI = _KIMI.replace(_letters, _letters + r"&&[^\p{Han}]")
_EAST_ASIAN = "[一-龥ࠀ-一가-\ud7ff]+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"


def _stages(*expressions, then=_BYTES):
    """Cut at the matches of one expression after the other."""
    return pre_tokenizers.Sequence([*(pre_tokenizers.Split(Regex(text), "isolated") for text in expressions), then])


#: `tokenizer.ggml.pre` -> the pre-tokenizer of the reference
REFERENCE_PRETOKENIZERS = {
    "gpt-2": _GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2]),
    "falcon": pre_tokenizers.Sequence(
        [_stages(r"[\p{P}$+<=>^~|`]+", then=_GPT2), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]
    ),
    "llama-bpe": _stages(_WORDS % "{1,3}"),
    "qwen2": _stages(_WORDS % ""),
    "qwen35": _stages(_QWEN35),
    "seed-coder": _stages((_WORDS % "").replace(r"\p{N}]+[\r\n]*", r"\p{N}\r\n]+")),
    "minicpm5": _stages(r"\p{N}{1,3}", _WORDS % "+"),
    "laguna": _stages(r"[^\n]+|[\n]+", _WORDS % ""),
    "gpt-4o": _stages(_CASED % {"short": _SHORT + "?", "digits": "{1,3}"}),
    "tekken": _stages(_CASED % {"short": "", "digits": ""}),
    "kimi-k2": _stages(_KIMI),
    "tiny_aya": _stages(r"\d{1,3}(?=(?:\d{3})*\b)", _CASED % {"short": _SHORT + "?", "digits": "{1,3}"}),
    "youtu": _stages(
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ゟ゠-ヿ]+",
        _CASED % {"short": _SHORT + "?", "digits": ""},
    ),
    "deepseek-coder": _stages(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST_ASIAN, r"\p{N}"),
    "deepseek-v3": _stages(r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", _DEEPSEEK3),
    "bloom": _stages(_BLOOM),
    "viking": _stages(_BLOOM, r"\p{N}"),
}
#: those in which a pretoken that is a piece as a whole is not merged
_WHOLE = ("llama-bpe", "minicpm5", "tekken", "youtu")


class Metadata:
    """Stands for a GGUF file: its metadata and the typed read of one key."""

    def __init__(self, metadata):
        self.metadata = {key: value for key, value in metadata.items() if value is not None}

    def get(self, key, kind, default=MISSING):
        value = self.metadata.get(key, default)
        if value is MISSING:
            raise InvalidFileError(f"{key} is missing")
        if value is not default and not isinstance(value, kind):
            raise InvalidFileError(f"{key} has the wrong type")
        return value

    def but(self, **changes):
        """The same file with other values for some keys of tokenizer.ggml; None takes one away."""
        return Metadata(self.metadata | {f"tokenizer.ggml.{key}": value for key, value in changes.items()})


class Region:
    """A string array as a GGUF file holds it, with offsets that need not be right."""

    def __init__(self, buffer, offsets):
        self.buffer = buffer
        self.offsets = np.array(offsets, np.uint64)

    def __len__(self):
        return len(self.offsets)


def spell(data):
    """Bytes in the GPT-2 alphabet."""
    return "".join(ALPHABET[byte] for byte in (data.encode() if isinstance(data, str) else data))


def bpe(*merges, special=(), pre="gpt-2", **keys):
    """A byte-level vocabulary: 256 bytes (token id = byte), what the merges yield, then special (text, type)."""
    pairs = [(spell(left), spell(right)) for left, right in merges]
    tokens = [ALPHABET[byte] for byte in range(256)]
    tokens += [left + right for left, right in pairs if left + right not in tokens]
    types = [NORMAL] * len(tokens) + [kind for _, kind in special]
    tokens += [text for text, _ in special]
    return Metadata({
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in pairs],
    }).but(**keys)


def spm(*pieces, special=(), byte_tokens=True, **keys):
    """A SentencePiece vocabulary: <unk> <s> </s>, the byte tokens, pieces with falling scores, special ones."""
    rows = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    rows += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256) if byte_tokens]
    rows += [(piece, -1.0 - i, NORMAL) for i, piece in enumerate(pieces)]
    rows += [(text, 0.0, kind) for text, kind in special]
    tokens, scores, types = zip(*rows, strict=True)
    return Metadata({
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
    }).but(**keys)


def reference_bpe(metadata, pre):
    """The Hugging Face tokenizer with the vocabulary and merges of a file and the rules of one `pre`."""
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    model = models.BPE(
        vocab={token: id for id, token in enumerate(tokens)},
        merges=[tuple(merge.split(" ")) for merge in merges],
        ignore_merges=pre in _WHOLE,
    )
    reference = Reference(model)
    reference.pre_tokenizer = REFERENCE_PRETOKENIZERS[pre]
    return reference


def sentencepiece_metadata(processor, *, add_space_prefix):
    """A trained SentencePiece model as GGUF metadata, converted as converters do it."""
    tokens, types = [], []
    for id in range(processor.get_piece_size()):
        piece, kind = processor.id_to_piece(id), NORMAL
        if processor.is_unknown(id):
            kind = UNKNOWN
        elif processor.is_control(id):
            kind = CONTROL
        elif processor.is_byte(id):
            kind = BYTE
        tokens.append(piece)
        types.append(kind)
    return Metadata({
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": array("f", [processor.get_score(id) for id in range(len(tokens))]),
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_space_prefix": add_space_prefix,
    })
