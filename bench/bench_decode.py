"""Speed of a whole model through the public interface: generated tokens, and prompts of several lengths."""

import random
from contextlib import closing

import pytest

import ollamacore
from tests.fetch import SMOLLM2, fetch

TOKENS = 32


@pytest.fixture(scope="module")
def model():
    with closing(ollamacore.Model.load(fetch(SMOLLM2), context=1024)) as loaded:
        yield loaded


@pytest.fixture
def prompts(model):
    """Random prompts without end: no two share a prefix, so none is answered from the cache."""
    rng = random.Random(1)
    ordinary = range(model.tokenizer.n_vocab // 64, model.tokenizer.n_vocab // 2)
    return lambda length: ((rng.choices(ordinary, k=length),), {})


def bench_decode(benchmark, model, prompts):
    def run(prompt):
        for _ in model.generate(prompt, temperature=0.0, num_predict=TOKENS):
            pass

    benchmark.extra_info["tokens"] = TOKENS
    benchmark.pedantic(run, setup=lambda: prompts(4), rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("length", [16, 128, 512])
def bench_prefill(benchmark, model, prompts, length):
    def run(prompt):
        for _ in model.generate(prompt, temperature=0.0, num_predict=1):
            pass

    benchmark.extra_info["tokens"] = length
    benchmark.pedantic(run, setup=lambda: prompts(length), rounds=5, warmup_rounds=1)
