"""The `tokenizer.ggml.*` metadata: arrays in the form that C reads, checked ids, defaults."""

from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

from ollamacore._core import Vocabulary
from ollamacore.errors import InvalidFileError
from ollamacore.tokenizer.insert import KNOWN_MARKS
from ollamacore.tokenizer.pretokenizers import BOS_BY_DEFAULT

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    #: Region of length-prefixed strings, u64 offsets into it, count.
    StringRegion = tuple[ReadableBuffer, ReadableBuffer, int]

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4

#: Tokens that end a generation in some model family, by their spelling. They count only where the vocabulary marks
#: them as control or user-defined, and then all but "</s>" are control tokens, for a text that a user wrote must not
#: hold them; "</s>" counts only as control, for elsewhere it is an HTML tag.
_END_TEXTS = (
    "</s>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|return|>",
    "<|call|>", "<|end_of_text|>", "<EOT>", "<|eot|>", "<|eom|>", "<|END_OF_TURN_TOKEN|>", "<end_of_utterance>",
    "<|endofturn|>", "<|end_of_turn|>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>", "<fim_pad>", "<reponame>", "<|tool_response>", "<start_function_response>",
)  # fmt: skip
_END_KEYS = ("eos", "eot", "eom")
#: `tokenizer.ggml.pre` and architectures whose <mask> takes the white space before it
_MASK_STRIPS = frozenset(("jina-v2-de", "jina-v2-es", "jina-v2-code", "nomic-bert-moe", "jina-bert-v3"))
#: special tokens of Phi 3 that keep the white space behind them
_PHI3_KEEPS = ("<unk>", "<s>", "<|endoftext|>")
#: tokenizers that files call byte-level, whose pieces are SentencePiece's
_PIECES = ("gemma4", "granite-embed-multi-311m")
#: rules in which a second separator stands between two texts by default
_SEPARATED = ("jina-v1-en", "jina-v2-code", "roberta-bpe")


class GGUFMetadata(Protocol):
    """What is asked of a GGUF file (ollamacore.gguf.GGUFFile)."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """All keys."""

    def get(self, key: str, kind: type, default: Any = ...) -> Any:
        """One key of a known kind."""


class TokenizerMetadata:
    """The part of a GGUF file's metadata that describes its tokenizer."""

    def __init__(self, gguf: GGUFMetadata) -> None:
        self._gguf = gguf
        self.pre: str = gguf.get("tokenizer.ggml.pre", str, "default")
        named: str = gguf.get("tokenizer.ggml.model", str)
        self.model = "gemma4" if named == "gpt2" and self.pre in _PIECES else named
        sentencepiece, wordpiece, unigram = (self.model == kind for kind in ("llama", "bert", "t5"))
        self.tokens = self.strings("tokenizer.ggml.tokens")
        self.types = self.numbers("tokenizer.ggml.token_type", "i", required=False)
        self.bos = self._id("bos", 1 if sentencepiece else None)
        self.eos = self._id("eos", 2 if sentencepiece else 1 if unigram else None)
        self.unknown = self._id("unknown", {"llama": 0, "bert": 100, "t5": 2}.get(self.model))
        if wordpiece:  # [CLS] and [SEP] stand around every text; the second key is spelled as GGUF files spell it
            self.bos = self._id("cls", 101) if self.bos is None else self.bos
            self.eos = self._id("seperator", 102)
        begins = named in ("llama", "gemma4") or (self.model == "gpt2" and self.pre in BOS_BY_DEFAULT)
        self.add_bos: bool = wordpiece or gguf.get("tokenizer.ggml.add_bos_token", bool, begins)
        self.add_eos: bool = wordpiece or gguf.get("tokenizer.ggml.add_eos_token", bool, unigram)
        # WordPiece ends texts with its separator anyway: one more only where the file asks for both. ModernBERT has
        # one, whatever a file says.
        both = gguf.get("tokenizer.ggml.add_eos_token", bool, False) or not wordpiece
        separated = gguf.get("tokenizer.ggml.add_sep_token", bool, unigram or self.pre in _SEPARATED)
        has_two = both and separated and self.pre != "modern-bert"
        self.separator = self._id("seperator", self.eos) if has_two else None
        self.lowercase: bool = gguf.get("tokenizer.ggml.normalizer.lowercase", bool, wordpiece)
        self.add_space_prefix: bool = self.model in ("llama", "gemma4", "t5") and gguf.get(
            "tokenizer.ggml.add_space_prefix", bool, self.model != "gemma4"
        )
        self.trim_spaces: bool = unigram and gguf.get("tokenizer.ggml.remove_extra_whitespaces", bool, False)
        self.charsmap = self._bytes("tokenizer.ggml.precompiled_charsmap") if unigram else None

    def strings(self, key: str) -> "StringRegion":
        """A string array as (region of length-prefixed strings, offsets into it, count)."""
        value = self._gguf.metadata.get(key)
        if value is None:
            raise InvalidFileError(f"{key} is missing")
        if hasattr(value, "buffer") and hasattr(value, "offsets"):
            return value.buffer, value.offsets, len(value)
        if not isinstance(value, list) or not all(isinstance(item, str | bytes) for item in value):
            raise InvalidFileError(f"{key} is not an array of strings")
        return _pack(value)

    def numbers(self, key: str, code: str, *, required: bool = True) -> memoryview | None:
        """A numeric array whose elements have the type `code` of the module array, one for each token."""
        value = self._gguf.metadata.get(key)
        if value is None and not required:
            return None
        if value is None:
            raise InvalidFileError(f"{key} is missing")
        try:
            view = memoryview(array(code, value) if isinstance(value, list) else value)
        except (TypeError, OverflowError):
            raise InvalidFileError(f"{key} is not a numeric array") from None
        if view.format.lstrip("<=@") != code:
            raise InvalidFileError(f"{key} has elements of the wrong type ({view.format!r}, not {code!r})")
        if view.nbytes != self.tokens[2] * 4:
            raise InvalidFileError(f"{key} has {view.nbytes // 4} elements for {self.tokens[2]} tokens")
        return view

    def _bytes(self, key: str) -> bytes | None:
        """An array of bytes, signed or not, if the file has it."""
        value = self._gguf.metadata.get(key)
        if value is None:
            return None
        try:
            view = memoryview(bytes(value) if isinstance(value, list) else value)
        except (TypeError, ValueError):
            raise InvalidFileError(f"{key} is not an array of bytes") from None
        if view.itemsize != 1:
            raise InvalidFileError(f"{key} has elements of the wrong type ({view.format!r}, not 'B')")
        return view.tobytes()

    def end_ids(self, vocabulary: Vocabulary) -> frozenset[int]:
        """Every token that ends a generation."""
        found = {id for name in _END_KEYS if (id := self._id(name, None)) is not None}
        if self.eos is not None:
            found.add(self.eos)
        by_text = {text: id for text in _END_TEXTS if (id := _special_id(vocabulary, text)) is not None}
        if "<|return|>" in by_text and "<|call|>" in by_text:  # gpt-oss: there <|end|> only closes a message
            by_text.pop("<|end|>", None)
        return frozenset(found | set(by_text.values()))

    @staticmethod
    def control() -> "StringRegion":
        """Spellings of control tokens, whatever the file says of them."""
        marks = [mark for marks in KNOWN_MARKS for mark in marks]
        return _pack([text for text in _END_TEXTS if text != "</s>"] + marks)

    def strip(self, vocabulary: Vocabulary) -> None:
        """Let special tokens take white space with them: which do is known by the names of models alone."""
        architecture: str = self._gguf.get("general.architecture", str, "")
        name: str = self._gguf.get("general.name", str, "").lower()
        if self.pre in _MASK_STRIPS or architecture in _MASK_STRIPS:
            mark = "<mask>"
        elif "phi-3" in name or "phi3" in name:
            return self._strip_phi3(vocabulary)
        elif "modern-bert" in name:
            mark = "[MASK]"
        else:
            return None
        if (id := _special_id(vocabulary, mark)) is not None:
            vocabulary.strip(id, left=True)
        return None

    def _strip_phi3(self, vocabulary: Vocabulary) -> None:
        keeps = {_special_id(vocabulary, text) for text in _PHI3_KEEPS}
        for id, kind in enumerate(self.types or ()):
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) and id not in keeps:
                vocabulary.strip(id, right=True)

    def _id(self, name: str, default: int | None) -> int | None:
        key = f"tokenizer.ggml.{name}_token_id"
        id: int | None = self._gguf.get(key, int, None)
        if id is None:
            return default if default is not None and default < self.tokens[2] else None
        if not 0 <= id < self.tokens[2]:
            raise InvalidFileError(f"{key} is {id}, but the vocabulary has {self.tokens[2]} tokens")
        return id


def _special_id(vocabulary: Vocabulary, text: str) -> int | None:
    """The special token with this spelling that is found in text by itself; "</s>" only as a control token."""
    ids = vocabulary.encode(text.encode(), True)
    kinds = (_CONTROL,) if text == "</s>" else (_UNKNOWN, _CONTROL, _USER_DEFINED)
    return ids[0] if len(ids) == 1 and vocabulary.type(ids[0]) in kinds else None


def _pack(items: Sequence[str | bytes]) -> "StringRegion":
    """Strings laid out as a GGUF array holds them."""
    parts = [item.encode() if isinstance(item, str) else item for item in items]
    region = b"".join([len(part).to_bytes(8, "little") + part for part in parts])
    offsets = array("Q", accumulate((8 + len(part) for part in parts), initial=0))
    return region, offsets, len(parts)
