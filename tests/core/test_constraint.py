"""Constraints: an answer is one of the choices, forced tokens skip their steps and change nothing else."""

import numpy as np
import pytest

import ollamacore
from ollamacore import Choice, InvalidOptionError
from ollamacore.constraint import token_mask
from ollamacore.tokenizer import Tokenizer
from tests.core.vocabularies import bpe, spm
from tests.generate.tiny import tiny_model

CHOICES = ["yes", "no", "not at all", "nothing", "maybe \u20ac 5"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tiny_model(tmp_path_factory.mktemp("tiny") / "m.gguf", "llama", tensor_type="Q8_0")
    with ollamacore.load(path, threads=2) as model:
        yield model


def choose(model, prompt, choices, **options):
    generation = model.generate(prompt, constraint=Choice(model.tokenizer, choices), **options)
    return generation.text(), generation


def test_answer_is_one_of_the_choices(tiny):
    found = set()
    for seed in range(40):
        text, generation = choose(tiny, [5, 9, 11 + seed], CHOICES, seed=seed, temperature=2.0, top_p=1.0)
        assert generation.done_reason == "stop"
        found.add(text)
    assert found <= set(CHOICES)
    assert len(found) > 2


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("extra", [{}, {"mirostat": 2}, {"xtc_probability": 0.5, "xtc_threshold": 0.01}])
def test_fast_forward_changes_nothing(tiny, temperature, extra):
    """With log-probabilities wanted, forced tokens are sampled one by one."""
    for seed in range(6):
        options = {"seed": seed, "temperature": temperature, **extra}
        text, generation = choose(tiny, [5, 9, 11], CHOICES, **options)
        slow, slow_generation = choose(tiny, [5, 9, 11], CHOICES, logprobs=True, **options)
        assert text == slow
        assert generation.stats.generated_tokens == slow_generation.stats.generated_tokens


def test_forced_tokens_take_one_step(tiny, monkeypatch):
    steps = []
    step = tiny._scheduler._step
    monkeypatch.setattr(tiny._scheduler, "_step", lambda *args: (steps.append(1), step(*args)))
    text = "x" * 50
    prompt = [7, 8, 9]
    assert choose(tiny, prompt, [text])[0] == text
    assert len(steps) == 1
    assert choose(tiny, prompt, [text + "ab", text + "cd"])[0][:50] == text
    assert len(steps) == 3


def test_limit_and_context_end_forced_tokens(tiny):
    text, generation = choose(tiny, [7, 8, 9], ["abcdefghij"], num_predict=2)
    assert "abcdefghij".startswith(text)
    assert generation.done_reason == "length"
    assert choose(tiny, [7, 8, 9], ["abcdefghij" * 4], num_ctx=16, num_predict=-1)[0] == "abcdefghij" * 4


def test_choices_beside_free_answers(tiny):
    free = tiny.generate([5, 9, 11], num_predict=20, seed=1)
    assert choose(tiny, [5, 9, 11], CHOICES, seed=1)[0] in CHOICES
    assert free.text() == tiny.generate([5, 9, 11], num_predict=20, seed=1).text()


def test_real_model_chooses_the_sensible_answer(smollm2_path):
    with ollamacore.load(smollm2_path) as model:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        choice = Choice(model.tokenizer, ["The capital is Paris.", "The capital is Berlin."])
        generation = model.chat(question, constraint=choice, temperature=0.0)
        assert generation.text() == "The capital is Paris."


@pytest.mark.parametrize(
    "metadata", [bpe(), spm("\u2581", "\u2581yes", "yes", "no"), spm("\u2581", add_space_prefix=True)]
)
def test_choices_are_spelled_exactly_by_every_tokenizer(metadata):
    tokenizer = Tokenizer.from_gguf(metadata)
    for text in ("yes", " no", "a\nb\u20ac"):
        choice, spelled = Choice(tokenizer, [text]), b""
        while not choice.finished:
            token = choice.forced()
            assert choice.allowed(tokenizer.n_vocab) == token_mask([token], tokenizer.n_vocab)
            choice.accept(token)
            spelled += tokenizer.token_bytes(token)
        assert spelled == text.encode()


def test_end_is_allowed_where_a_choice_ends(tiny):
    choice = Choice(tiny.tokenizer, ["a", "ab"])
    choice.accept(choice.forced())
    bits = np.unpackbits(np.array(choice.allowed(tiny.n_vocab)).view(np.uint8), bitorder="little")
    assert set(np.flatnonzero(bits)) > set(tiny.tokenizer.end_ids)
    assert choice.forced() is None
    assert not choice.finished


@pytest.mark.parametrize("choices", [[], [""]])
def test_nothing_to_choose_from_is_refused(tiny, choices):
    with pytest.raises(InvalidOptionError, match="nothing to choose from"):
        Choice(tiny.tokenizer, choices)
