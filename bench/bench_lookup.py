"""Prompt lookup on and off: an answer that repeats its prompt, and one that does not."""

from contextlib import closing

import pytest

import ollamacore
from tests.fetch import QWEN05, SMOLLM2, fetch

CODE = '''def area(width, height):
    return width * height

def perimeter(width, height):
    return 2 * (width + height)

class Box:
    def __init__(self, width, height, depth):
        self.width = width
        self.height = height
        self.depth = depth

    def volume(self):
        return area(self.width, self.height) * self.depth
'''
QUESTIONS = {
    "edit": f"Repeat this code exactly, but rename Box to Crate:\n```python\n{CODE}```",
    "prose": "Tell me about the sea and the people who live by it.",
}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("lookup", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("source", [SMOLLM2, QWEN05], ids=["smollm2", "qwen05"])
def bench_lookup(benchmark, source, lookup, question, temperature):
    with closing(ollamacore.load(fetch(source), lookup=lookup)) as model:

        def run():
            messages = [{"role": "user", "content": QUESTIONS[question]}]
            generation = model.chat(messages, temperature=temperature, seed=3, num_predict=70)
            generation.text()
            benchmark.extra_info["tokens"] = generation.stats.generated_tokens

        benchmark.pedantic(run, rounds=5, warmup_rounds=1)
