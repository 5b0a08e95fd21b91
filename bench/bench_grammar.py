"""Structured output: what the masks of an answer cost, first and again, and what a format costs a stream.

`extra_info` has microseconds a token: the median, the 99th percentile and the worst of all masks of an answer.
"""

import json
import time
from array import array
from contextlib import closing

import pytest

import ollamacore
from ollamacore import ModelText
from ollamacore._core import Matcher, Spellings
from ollamacore.grammar import compile_format
from ollamacore.grammar.schema import schema_grammar
from tests.fetch import QWEN05, SMOLLM2, fetch

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "score": {"type": "number"},
        "born": {"type": "string", "format": "date"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}},
        "color": {"enum": ["red", "green", "blue"]},
    },
    "required": ["name", "age", "score", "born", "tags", "color"],
}
ANSWER = {
    "name": 'Ada "the first" Lovelace, \u4f60\u597d, who wrote the first program for a machine that was never built',
    "age": 36,
    "score": 0.25,
    "born": "1815-12-10",
    "tags": ["analytical engine", "poetry of numbers"],
    "color": "green",
}
OPEN = {**SCHEMA, "additionalProperties": True}


@pytest.fixture(scope="session", params=[SMOLLM2, QWEN05], ids=["49k", "152k"])
def text(request):
    return ModelText.open(fetch(request.param))


def masks(spellings, grammar, tokens):
    """Seconds of the mask before each token."""
    matcher, mask = Matcher(grammar), array("I", bytes(4 * -(-spellings.n_vocab // 32)))
    times = []
    for data in tokens:
        began = time.perf_counter()
        matcher.mask(spellings, mask)
        times.append(time.perf_counter() - began)
        assert matcher.accept(data)
    return times


def bench_spellings(benchmark, text):
    tokenizer = text.tokenizer
    benchmark.pedantic(
        Spellings, (tokenizer.vocabulary, tokenizer.n_vocab, tokenizer.end_ids), rounds=5, warmup_rounds=1
    )


@pytest.mark.parametrize("format", [SCHEMA, OPEN, "json"], ids=["schema", "open", "json"])
@pytest.mark.parametrize("state", ["first", "again"])
def bench_masks(benchmark, text, state, format):
    tokenizer = text.tokenizer
    spellings = Spellings(tokenizer.vocabulary, tokenizer.n_vocab, tokenizer.end_ids)
    ids = tokenizer.encode(json.dumps(ANSWER, ensure_ascii=False, indent=2), add_special=False)
    tokens = [tokenizer.token_bytes(id) for id in ids]
    found = []

    def grammar():
        """One that no mask is kept for, or the one that all rounds share."""
        if state == "again" or format == "json":
            return compile_format(format)
        return schema_grammar(format)

    def setup():
        nonlocal spellings
        if state == "first":
            spellings = Spellings(tokenizer.vocabulary, tokenizer.n_vocab, tokenizer.end_ids)
        return (spellings, grammar(), tokens), {}

    rounds = 5 if state == "first" else 50
    benchmark.pedantic(
        lambda *args: found.extend(masks(*args)), setup=setup, rounds=rounds, warmup_rounds=int(state == "again")
    )
    found = sorted(found[-rounds * len(tokens) :])
    us = {name: 1e6 * found[int(part * (len(found) - 1))] for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1))}
    benchmark.extra_info |= {"tokens": len(tokens), **us}
    print(f" {len(tokens)} tokens, us a mask:", *(f"{name} {value:.1f}" for name, value in us.items()))


@pytest.mark.parametrize("format", [None, "json", SCHEMA], ids=["free", "json", "schema"])
def bench_stream(benchmark, format):
    """A stream that repeats nothing; without lookup, which a format turns off."""
    with closing(ollamacore.load(fetch(SMOLLM2), lookup=False)) as model:
        question = [{"role": "user", "content": "Tell me about Ada Lovelace as JSON, with a long name and many tags."}]

        def run():
            generation = model.chat(question, format=format, temperature=0.0, num_predict=64)
            generation.text()
            benchmark.extra_info["tokens"] = generation.stats.generated_tokens
            benchmark.extra_info["ms"] = generation.stats.eval_ns / 1e6 / generation.stats.generated_tokens

        benchmark.pedantic(run, rounds=5, warmup_rounds=1)
        print(f" {benchmark.extra_info['tokens']} tokens, {benchmark.extra_info['ms']:.2f} ms a token")
