"""A constraint holds for the content, not for the thought before it."""

import numpy as np
import pytest

import ollamacore
from ollamacore import AnswerFormat, Choice, jinja_answer_format
from ollamacore.after_thinking import AfterThinking
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


def test_a_tag_of_several_tokens_may_begin_and_is_then_spelled_to_its_end(tokenizer):
    n_vocab = tokenizer.n_vocab
    answer = AnswerFormat(ThinkingTags("<t>", "</t>")).parser("")
    constraint = AfterThinking(Choice(tokenizer, ["yes"]), answer, tokenizer)
    first, *rest = tokenizer.encode("<t>")
    [yes, *_] = tokenizer.encode("yes")
    assert tokens_of(constraint.allowed(n_vocab)) == {first, yes}
    assert constraint.forced() is None
    constraint.accept(first)
    for token in rest:
        assert constraint.forced() == token
        assert tokens_of(constraint.allowed(n_vocab)) == {token}
        constraint.accept(token)
    answer.push("<t>")
    assert tokens_of(constraint.allowed(n_vocab)) == set(range(n_vocab))
    answer.push("so</t>")
    assert tokens_of(constraint.allowed(n_vocab)) == {yes}
    assert constraint.forced() == yes
    for token in tokenizer.encode("yes"):
        assert not constraint.finished
        constraint.accept(token)
    assert constraint.finished


def test_a_thought_that_the_prompt_has_begun_is_free(tokenizer):
    answer = jinja_answer_format("<think></think>").parser("<think>\n")
    constraint = AfterThinking(Choice(tokenizer, ["yes"]), answer, tokenizer)
    assert tokens_of(constraint.allowed(tokenizer.n_vocab)) == set(range(tokenizer.n_vocab))
    assert constraint.forced() is None
    assert not constraint.finished
