"""llama.cpp's own tokenizer vectors: real vocabularies, its test strings, its ids."""

import pytest

from ollamacore import GGUFFile, Tokenizer
from tests.fetch import fetch_vocabularies

pytestmark = pytest.mark.model

SEPARATOR = "\n__ggml_vocab_test__\n"
#: every vocabulary with vectors whose tokenizer is supported
NAMES = ("gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "mpt", "starcoder", "refact", "command-r", "bert-bge",
         "deepseek-coder", "deepseek-llm", "falcon", "gemma-4", "qwen35")  # fmt: skip


@pytest.fixture(scope="module")
def folder():
    return fetch_vocabularies()


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_llama_cpp(folder, name):
    path = folder / f"ggml-vocab-{name}.gguf"
    texts = path.with_name(path.name + ".inp").read_bytes().decode().split(SEPARATOR)
    lines = path.with_name(path.name + ".out").read_text().split("\n")
    expected = [[int(word) for word in line.split()] for line in lines[: len(texts)]]
    with GGUFFile.open(path) as file:
        tokenizer = Tokenizer.from_gguf(file)
    found = [tokenizer.encode(text, add_special=False, parse_special=False) for text in texts]
    assert len(texts) >= 40
    assert found == expected


def test_pieces_of_a_file_that_calls_them_byte_level(folder):
    """Granite's multilingual embedding has Gemma's tokenizer by another name."""
    with GGUFFile.open(folder / "ggml-vocab-gemma-4.gguf") as file:
        expected = Tokenizer.from_gguf(file)
        names = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "granite-embed-multi-311m"}
        file.metadata = {**file.metadata, **names}
        found = Tokenizer.from_gguf(file)
    for text in ("Grüße, Welt!\n\n  12345", "字典 ▁ and\ttabs", "<bos>"):
        assert found.encode(text, add_special=False) == expected.encode(text, add_special=False)
