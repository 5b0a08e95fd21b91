"""Tokenizer speed on real vocabularies: load, one prompt as the first of a process, short and long text, decoding."""

from pathlib import Path

import pytest

from ollamacore.gguf import GGUFFile
from ollamacore.tokenizer import Tokenizer
from tests.fetch import SMOLLM2, fetch, fetch_vocabularies

DATA = Path(__file__).parent.parent / "tests" / "data" / "tokenizer"
PROSE, CODE, MIXED = ((DATA / f"{name}.txt").read_bytes().decode() for name in ("prose", "code", "mixed"))
NOVEL = (Path(__file__).parent / "data" / "war-and-peace.txt").read_bytes().decode()[5000:]
WARM, LONG = NOVEL[:4096], NOVEL[: 1 << 20]
#: of llama.cpp's vocabularies those in docs/tokenizers.md
VOCABULARIES = ("gemma-4", "nomic-bert-moe", "command-r", "qwen2", "llama-bpe", "deepseek-llm", "deepseek-coder",
                "falcon", "starcoder", "bert-bge", "llama-spm")  # fmt: skip
SAMPLES = {"prose": PROSE * 100, "code": CODE * 200, "mixed": MIXED * 5}


@pytest.fixture(scope="session")
def smollm2():
    with GGUFFile.open(fetch(SMOLLM2)) as file:
        yield file


@pytest.fixture(scope="session")
def tokens(smollm2):
    return Tokenizer.from_gguf(smollm2)


def bench_load(benchmark, smollm2):
    benchmark(Tokenizer.from_gguf, smollm2)


def bench_encode_first_prompt(benchmark, smollm2):
    benchmark.pedantic(
        lambda tokens: tokens.encode(PROSE),
        setup=lambda: ((Tokenizer.from_gguf(smollm2),), {}),
        rounds=10,
    )
    benchmark.extra_info["bytes"] = len(PROSE.encode())


@pytest.mark.parametrize("sample", SAMPLES)
def bench_encode(benchmark, tokens, sample):
    text = SAMPLES[sample]
    benchmark(tokens.encode, text)
    benchmark.extra_info["MB/s"] = round(len(text.encode()) / benchmark.stats["min"] / 1e6, 1)


@pytest.fixture(params=VOCABULARIES)
def vocabulary(request):
    with GGUFFile.open(fetch_vocabularies() / f"ggml-vocab-{request.param}.gguf") as file:
        yield file


def bench_load_vocabulary(benchmark, vocabulary):
    benchmark.pedantic(Tokenizer.from_gguf, (vocabulary,), rounds=7)


@pytest.mark.parametrize("text", [WARM, LONG], ids=["warm", "long"])
def bench_encode_vocabulary(benchmark, vocabulary, text):
    tokens = Tokenizer.from_gguf(vocabulary)
    benchmark.pedantic(tokens.encode, (text,), rounds=7, warmup_rounds=1, iterations=200 if text is WARM else 1)
    benchmark.extra_info["MB/s"] = round(len(text.encode()) / benchmark.stats["min"] / 1e6, 1)


def bench_decode(benchmark, tokens):
    ids = tokens.encode(MIXED)
    benchmark(tokens.decode, ids)
    benchmark.extra_info["tokens/s"] = round(len(ids) / benchmark.stats["min"])
