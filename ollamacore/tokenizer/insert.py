"""The marks of a prompt that has a text before and a text after the gap (fill in the middle)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ollamacore.gguf import GGUFFile

_KEYS = ("fim_pre", "fim_suf", "fim_mid")


class InsertMarks(NamedTuple):
    """The spellings of the tokens that stand before the text before the gap, before the text after it, and last."""

    before: str
    after: str
    middle: str


#: in files whose metadata does not name them: the spellings of Qwen Coder, StarCoder and Granite Code, DeepSeek Coder
KNOWN_MARKS = (
    InsertMarks("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    InsertMarks("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    InsertMarks("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
)


def insert_marks(file: GGUFFile) -> InsertMarks | None:
    """The marks of a model, by its metadata or else by its vocabulary; None if it has none."""
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if tokens is None or not hasattr(tokens, "raw"):
        return None
    ids = [file.get(f"tokenizer.ggml.{key}_token_id", int, None) for key in _KEYS]
    if None not in ids and all(0 <= id < len(tokens) for id in ids):
        return InsertMarks(*(tokens[id] for id in ids))
    region = bytes(tokens.buffer)
    return next((marks for marks in KNOWN_MARKS if all(_is_token(region, mark) for mark in marks)), None)


def _is_token(region: bytes, text: str) -> bool:
    """Whether a region of length-prefixed strings holds a text; reading them one by one takes fifty times as long."""
    spelling = text.encode()
    return len(spelling).to_bytes(8, "little") + spelling in region
