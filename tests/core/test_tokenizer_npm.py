"""Vocabularies of model families as Hugging Face publishes them, against Hugging Face's own encoder.

Those whose rules the vectors of llama.cpp (test_tokenizer_vectors.py) do not cover.
"""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Reference

from ollamacore.tokenizer import Tokenizer
from tests.core.vocabularies import CONTROL, NORMAL, USER_DEFINED, Metadata
from tests.fetch import fetch_tokenizer

pytestmark = pytest.mark.model

MIXED = (Path(__file__).parent.parent / "data" / "tokenizer" / "mixed.txt").read_bytes().decode()
#: family -> `tokenizer.ggml.pre`
FAMILIES = {"qwen3": "qwen2", "gptoss": "gpt-4o", "deepseek_v3": "deepseek-v3"}


def metadata_of(contents, pre):
    """A tokenizer.json as GGUF metadata, converted as converters do it."""
    model, added = contents["model"], contents["added_tokens"]
    spelled = {id: text for text, id in model["vocab"].items()} | {token["id"]: token["content"] for token in added}
    tokens = [spelled.get(id, f"[unused {id}]") for id in range(max(spelled) + 1)]
    types = [NORMAL] * len(tokens)
    for token in added:
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return Metadata({
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
    })


def texts_with(tokens):
    """Pieces of the mixed text, and special tokens in text."""
    special = [token["content"] for token in tokens]
    return [MIXED[start : start + 997] for start in range(0, len(MIXED), 2999)] + [
        f"x {text} y{text}{text}\n" for text in special[:5] + special[-5:]
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_equal_hugging_face(family, tmp_path):
    path = fetch_tokenizer(family)
    contents = json.loads(path.read_text())
    tokens = Tokenizer.from_gguf(metadata_of(contents, FAMILIES[family]))
    if contents["normalizer"] == {"type": "NFC"}:  # GGUF tokenizers take text as it is
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps(contents | {"normalizer": None}))
    reference = Reference.from_file(str(path))
    for text in texts_with(contents["added_tokens"]):
        assert tokens.encode(text, add_special=False) == reference.encode(text, add_special_tokens=False).ids
