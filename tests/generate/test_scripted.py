"""The scripted models say what they were told to, through our engine."""

import pytest

import ollamacore
from ollamacore.gguf import GGUFFile
from tests.generate.scripted import ROLES, scripted_model
from tests.generate.vocabulary import END

GREEDY = {"temperature": 0.0}


def answer(path, prompt, **options):
    """Texts of the tokens, and the reason to stop."""
    with ollamacore.load(path, threads=1, context=512) as model:
        chunks = list(model.generate(prompt, **{**GREEDY, **options}))
        ids = [id for chunk in chunks for id in chunk.tokens]
        return "".join(chunk.text for chunk in chunks), ids, chunks[-1].done_reason, model


@pytest.mark.parametrize("model", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "script",
    [
        ["Hello", " ", "world", "!", "\n"],
        ["a", "a", "a", "b", "a"],
        ["5 ", b"\xe2", b"\x82", b"\xac", " ", b"\xf0", b"\x9f", b"\x98", b"\x80"],
        ["<tool_call>", '{"name": "f"}', "</tool_call>"],
        ["日本", "語", " é"],
    ],
)
def test_answer_is_the_script(tmp_path, model, script):
    path = scripted_model(tmp_path / "m.gguf", script, model=model)
    text, ids, reason, _ = answer(path, "Anything at all?<|go|>")
    expected = b"".join(piece.encode() if isinstance(piece, str) else piece for piece in script)
    assert text == expected.decode()
    assert reason == "stop"
    assert len([id for id in ids if id]) >= len(script)


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_answer_stays_the_same_with_sampling_defaults(tmp_path, model):
    path = scripted_model(tmp_path / "m.gguf", ["x", "y", " z"] * 20, model=model)
    for seed in range(5):
        text = answer(path, "q<|go|>", temperature=1.5, repeat_penalty=1.3, seed=seed)[0]
        assert text == "xy z" * 20


def test_prompt_without_its_end_token_gets_the_first_script(tmp_path):
    path = scripted_model(tmp_path / "m.gguf", {"<|a|>": ["one"], "<|b|>": ["two", " three"]})
    assert answer(path, "whatever")[0] == "one"
    assert answer(path, "whatever<|b|>")[0] == "two three"
    assert answer(path, "<|b|> and <|a|>")[0] == "one"


def test_script_that_loops_ends_by_length(tmp_path):
    path = scripted_model(tmp_path / "m.gguf", ["a", "b"], loop=True)
    text, _, reason, _ = answer(path, "<|go|>", num_predict=7)
    assert (text, reason) == ("abababa", "length")


def test_empty_script_ends_at_once(tmp_path):
    path = scripted_model(tmp_path / "m.gguf", [])
    assert answer(path, "<|go|>")[0] == ""


def test_chat_template_ends_in_the_prompt_end(tmp_path):
    path = scripted_model(tmp_path / "m.gguf", ["fine"])
    with ollamacore.load(path, threads=1, context=512) as model:
        prompt = model.render_chat([{"role": "user", "content": "Hi"}])
        assert prompt == "<|user|>Hi<|go|>"
        assert "".join(chunk.text for chunk in model.chat([{"role": "user", "content": "Hi"}], **GREEDY)) == "fine"
        ids = model.tokenize("".join(ROLES) + END)
        assert len(ids) == 5


def test_file_is_small_and_has_a_template_only_if_asked_for(tmp_path):
    path = scripted_model(tmp_path / "m.gguf", ["a"] * 100, chat_template=None)
    assert path.stat().st_size < 1 << 20
    with GGUFFile.open(path) as file:
        assert "tokenizer.chat_template" not in file.metadata


@pytest.mark.parametrize(("script", "model"), [(["a", ""], "gpt2"), ([b"\xe2\x82"], "llama"), ({}, "gpt2")])
def test_impossible_scripts_are_refused(tmp_path, script, model):
    with pytest.raises(ValueError):
        scripted_model(tmp_path / "m.gguf", script, model=model)
