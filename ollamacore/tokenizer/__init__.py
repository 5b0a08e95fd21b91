"""Text to token ids and back, as the model's own tokenizer does it. The loops are in csrc/text.

Reads the `tokenizer.ggml.*` metadata of a GGUF file. Models: `gpt2` (byte-level BPE), `llama` and `gemma4`
(SentencePiece BPE, by score and by rank), `t5` (SentencePiece unigram) and `bert` (WordPiece); anything else is refused
with UnsupportedModelError. Conversations are rendered elsewhere (ollamacore.prompt).
"""

from collections.abc import Iterable
from typing import Self

from ollamacore._core import TokenStream, Vocabulary
from ollamacore.errors import UnsupportedModelError
from ollamacore.tokenizer.metadata import GGUFMetadata, TokenizerMetadata
from ollamacore.tokenizer.pretokenizers import PRETOKENIZERS

__all__ = ["TokenStream", "Tokenizer"]

#: `tokenizer.ggml.model` -> the algorithm of the vocabulary
_MODELS = {"gpt2": "gpt2", "llama": "llama", "gemma4": "llama", "t5": "t5", "bert": "bert"}


class Tokenizer:
    """The tokenizer of one model. Immutable and thread-safe.

    `end_ids` holds every token that ends a generation, `bos` and `eos` are None if the model has none.
    """

    def __init__(self, vocabulary: Vocabulary, metadata: TokenizerMetadata) -> None:
        self.vocabulary = vocabulary
        self._strip_space = metadata.model == "bert" or metadata.add_space_prefix
        self.n_vocab: int = vocabulary.count
        self.bos = metadata.bos
        self.eos = metadata.eos
        self.add_bos = metadata.add_bos and self.bos is not None
        self.add_eos = metadata.add_eos and self.eos is not None
        #: what stands between two texts of one input beside the end of the first, None if nothing does
        self.separator = metadata.separator
        #: tokens that `encode` puts around a text
        self.n_added = int(self.add_bos) + int(self.add_eos)
        self.end_ids = metadata.end_ids(vocabulary)

    @classmethod
    def from_gguf(cls, gguf: GGUFMetadata) -> Self:
        """Build the tokenizer that a GGUF file describes."""
        metadata = TokenizerMetadata(gguf)
        if metadata.model not in _MODELS:
            raise UnsupportedModelError(f"tokenizer model {metadata.model!r} is not supported")
        if metadata.model == "gpt2" and metadata.pre not in PRETOKENIZERS:
            raise UnsupportedModelError(f"pre-tokenizer {metadata.pre!r} is not supported")
        rules, ignore_merges = PRETOKENIZERS[metadata.pre if metadata.model == "gpt2" else "default"]
        has_merges, has_scores = metadata.model in ("gpt2", "gemma4"), metadata.model in ("llama", "t5")
        vocabulary = Vocabulary(
            model=_MODELS[metadata.model],
            pre=rules,
            tokens=metadata.tokens,
            merges=metadata.strings("tokenizer.ggml.merges") if has_merges else None,
            scores=metadata.numbers("tokenizer.ggml.scores", "f") if has_scores else None,
            types=metadata.types,
            charsmap=metadata.charsmap,
            control=metadata.control(),
            unknown=-1 if metadata.unknown is None else metadata.unknown,
            ignore_merges=ignore_merges,
            add_space_prefix=metadata.add_space_prefix,
            trim_spaces=metadata.trim_spaces,
            lowercase=metadata.lowercase,
        )
        metadata.strip(vocabulary)
        return cls(vocabulary, metadata)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of a text.

        `add_special` puts BOS and EOS around it where the model asks for them. With `parse_special` the spelling
        of a control token in the text becomes that token; leave it off for text that a user wrote. User-defined
        tokens are always found. A lone surrogate counts as U+FFFD.
        """
        ids = self.vocabulary.encode(_utf8(text), parse_special)
        if add_special and self.add_bos and self.bos is not None:
            ids.insert(0, self.bos)
        if add_special and self.add_eos and self.eos is not None:
            ids.append(self.eos)
        return ids

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD.

        The space that `encode` put before the text is taken away again, where the model has one.
        """
        data = b"".join([self.vocabulary.piece(id, special) for id in ids])
        if self._strip_space and data.startswith(b" "):
            data = data[1:]
        return data.decode("utf-8", "replace")

    def token_bytes(self, id: int, *, special: bool = False) -> bytes:
        """The bytes that a token adds to a text; control tokens add none unless `special`."""
        return self.vocabulary.piece(id, special)

    def token_text(self, id: int) -> str:
        """The vocabulary's own spelling of a token, such as `Ġthe`, `▁the` or `<0x0A>`."""
        return self.vocabulary.spelling(id).decode("utf-8", "replace")

    def has_token(self, text: str) -> bool:
        """Whether a text is one token of the vocabulary."""
        return len(self.vocabulary.encode(_utf8(text), True)) == 1

    def hidden(self, texts: Iterable[str]) -> dict[int, str]:
        """The control tokens in these texts, which `decode` leaves out, with their spelling."""
        ids = {id for text in texts for id in self.vocabulary.encode(_utf8(text), True)}
        return {id: self.token_text(id) for id in ids if not self.token_bytes(id)}

    def stream(self, *, special: bool = False) -> TokenStream:
        """A decoder for tokens that come one by one and continue a text: no leading space is taken away."""
        return TokenStream(self.vocabulary, special)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # surrogates: pairs are joined, lone ones become U+FFFD
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
