"""A constraint holds for the content, not for the thought before it."""

import numpy as np
import pytest

import ollamacore
from ollamacore import AnswerFormat, Choice, jinja_answer_format
from ollamacore.after_thinking import after_thinking
from ollamacore.prompt.thinking import ThinkingTags
from tests.core.vocabularies import bpe
from tests.generate.scripted import agent_model, scripted_model
from tests.generate.vocabulary import Control

ASK = [{"role": "user", "content": "Weather?"}]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}<think></think><|go|>"


@pytest.fixture(scope="module")
def tokenizer():
    return ollamacore.Tokenizer.from_gguf(bpe())


def tokens_of(bits):
    return set(np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little")))


def test_the_thought_is_free_and_the_content_is_not(tmp_path):
    script = [Control("<think>"), "so", Control("</think>"), "\n\n", "perhaps"]
    path = scripted_model(tmp_path / "m.gguf", script, chat_template=TEMPLATE)
    with ollamacore.load(path, threads=1) as model:
        assert model.chat(ASK, temperature=0).text() == "perhaps"
        chunks = list(model.chat(ASK, constraint=Choice(model.tokenizer, ["yes", "no"]), temperature=0))
        assert "".join(chunk.thinking for chunk in chunks) == "so"
        assert "".join(chunk.text for chunk in chunks) in ("yes", "no")


def test_content_without_a_thought_is_constrained_from_the_start(tmp_path):
    with ollamacore.load(agent_model(tmp_path / "a.gguf"), threads=1) as model:
        generation = model.chat(ASK, think=False, constraint=Choice(model.tokenizer, ["yes", "no"]), temperature=0)
        assert generation.text() in ("yes", "no")


def test_a_tag_of_several_tokens_may_begin(tokenizer):
    n_vocab = tokenizer.n_vocab
    answer = AnswerFormat(ThinkingTags("<t>", "</t>")).parser("")
    constraint = after_thinking(Choice(tokenizer, ["yes"]), answer, tokenizer)
    first, *rest = tokenizer.encode("<t>so</t>")
    [yes, *_] = tokenizer.encode("yes")
    assert tokens_of(constraint.allowed(n_vocab)) == {first, yes}
    assert constraint.forced() is None
    constraint.accept(first)
    for token in rest:
        assert constraint.allowed(n_vocab) is None
        constraint.accept(token)
    assert tokens_of(constraint.allowed(n_vocab)) == {yes}
    for token in tokenizer.encode("yes"):
        assert not constraint.finished
        constraint.accept(token)
    assert constraint.finished


def test_a_thought_that_the_prompt_has_begun_is_free(tokenizer):
    answer = jinja_answer_format("<think></think>").parser("<think>\n")
    constraint = after_thinking(Choice(tokenizer, ["yes"]), answer, tokenizer)
    assert constraint.allowed(tokenizer.n_vocab) is None
    assert constraint.forced() is None
    assert not constraint.finished


def test_a_format_holds_behind_a_thought(tmp_path):
    script = [Control("<think>"), "so", Control("</think>"), "\n\n", "perhaps"]
    path = scripted_model(tmp_path / "m.gguf", script, chat_template=TEMPLATE)
    with ollamacore.load(path, threads=1) as model:
        chunks = list(model.chat(ASK, format={"enum": [1, 2]}, temperature=0))
        assert "".join(chunk.thinking for chunk in chunks) == "so"
        assert "".join(chunk.text for chunk in chunks) in ("1", "2")
