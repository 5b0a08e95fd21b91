"""Incremental decoding: text that can be sent on as tokens arrive."""

from codecs import getincrementaldecoder

from ollamacore._core import Vocabulary

_Decoder = getincrementaldecoder("utf-8")


class TokenStream:
    """Turns tokens into text, holding back the bytes of a character until it is complete."""

    def __init__(self, vocabulary: Vocabulary, special: bool) -> None:
        self._vocabulary = vocabulary
        self._special = special
        self._decoder = _Decoder("replace")

    def push(self, id: int) -> str:
        """Text that this token completes, perhaps none; bytes that can never become UTF-8 are U+FFFD."""
        return self._decoder.decode(self._vocabulary.piece(id, self._special))

    def flush(self) -> str:
        """End of the stream: an incomplete character is dropped, and the stream can be used anew."""
        self._decoder.reset()
        return ""
