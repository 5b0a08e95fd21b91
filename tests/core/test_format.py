"""Generating in a format: the answer is JSON of its schema, alone and beside others, whatever else is asked for."""

import json
import threading
import uuid
from datetime import date, datetime

import jsonschema
import pytest
from pydantic import BaseModel, Field

import ollamacore
from ollamacore import Choice, Deferred, InvalidFormatError, InvalidOptionError
from tests.generate.tiny import tiny_model

PROMPT = [5, 9, 11]


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def tiny(request, tmp_path_factory):
    path = tiny_model(tmp_path_factory.mktemp("tiny") / "m.gguf", request.param, tensor_type="Q8_0")
    with ollamacore.load(path, threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tiny_model(tmp_path_factory.mktemp("tiny") / "m.gguf", "llama", tensor_type="Q8_0")
    with ollamacore.load(path, threads=2) as model:
        yield model


class Place(BaseModel):
    name: str = Field(max_length=4)
    kind: str | None = Field(None, pattern="^[a-z]{1,3}$")
    height: float | None = None


class Route(BaseModel):
    stops: list[Place] = Field(max_length=2)
    length: int = Field(ge=0, le=99)
    back: bool


TEXT = {"type": "string", "maxLength": 4}
SCHEMAS = {
    "string": TEXT,
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "bounds": {"type": "array", "items": {"type": "number", "minimum": -2, "exclusiveMaximum": 7.25}, "maxItems": 3},
    "integer bounds": {"type": "integer", "exclusiveMinimum": -104, "maximum": 1017},
    "types": {"type": ["boolean", "null", "string"], "maxLength": 3},
    "object": {"type": "object", "properties": {"a": TEXT, "b": {"type": "null"}}, "required": ["b"]},
    "map": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
    "open": {
        "type": "object",
        "properties": {"a": TEXT},
        "additionalProperties": {"type": "boolean"},
        "required": ["a"],
    },
    "tuple": {"type": "array", "prefixItems": [TEXT, {"type": "boolean"}], "items": {"type": "null"}, "maxItems": 4},
    "items": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 3},
    "enum": {"enum": ["red", "green", {"a": 1}, None, "\u00e9\U0001f600"]},
    "any of": {"anyOf": [TEXT, {"type": "array", "items": {"const": 7}, "maxItems": 3}]},
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]},
    "pattern": {"type": "string", "pattern": r"^[a-c]{2,4}-\d{1,3}(x|\u00e9)?$"},
    "pydantic": Route.model_json_schema(),
}


def answers(model, format, *, seeds=range(6), **options):
    """Answers with several seeds, computed in one batch."""
    options = {"temperature": 1.0, "num_predict": 400, "top_k": 0, "top_p": 1.0, **options}
    running = [model.generate([*PROMPT, 20 + seed], format=format, seed=seed, **options) for seed in seeds]
    return [(generation.text(), generation.done_reason) for generation in running]


@pytest.mark.parametrize("name", SCHEMAS)
def test_answer_is_valid(tiny, name):
    validator = jsonschema.Draft202012Validator(SCHEMAS[name])
    found = answers(tiny, SCHEMAS[name])
    whole = [text for text, reason in found if reason == "stop"]
    assert len(whole) >= 4
    for text in whole:
        validator.validate(json.loads(text))


@pytest.mark.parametrize(
    ("format", "read"), [("date", date.fromisoformat), ("date-time", datetime.fromisoformat), ("uuid", uuid.UUID)]
)
def test_formats_of_strings_can_be_read(model, format, read):
    for text, reason in answers(model, {"type": "string", "format": format}):
        assert reason == "stop"
        read(json.loads(text))


def test_json_mode_gives_objects(model):
    """What a random model says is often without end; what ends is an object, and what is cut begins as one."""
    found = answers(model, "json", seeds=range(12))
    whole = [json.loads(text) for text, reason in found if reason == "stop"]
    assert whole
    assert all(isinstance(value, dict) for value in whole)
    assert all(text.startswith("{") for text, _ in found)


def test_num_predict_cuts_an_answer(model):
    text, reason = answers(model, {"enum": ["a long, long text"]}, seeds=[1], num_predict=4)[0]
    assert reason == "length"
    assert '"a long, long text"'.startswith(text)


@pytest.mark.parametrize("name", ["pydantic", "open", "enum"])
def test_answer_alone_and_beside_others_is_the_same(model, name):
    beside = answers(model, SCHEMAS[name])
    free = model.generate([5, 6], num_predict=30, seed=1)
    alone = [answers(model, SCHEMAS[name], seeds=[seed])[0] for seed in range(6)]
    assert alone == beside
    assert len({text for text, _ in alone}) > 1
    assert free.text() == model.generate([5, 6], num_predict=30, seed=1).text()


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"mirostat": 2}, {"repeat_penalty": 1.5, "min_p": 0.1}])
@pytest.mark.parametrize("name", ["pydantic", "enum"])
def test_logprobs_change_nothing(model, name, options):
    """With them, forced tokens are sampled one by one."""
    plain = answers(model, SCHEMAS[name], **options)
    assert answers(model, SCHEMAS[name], logprobs=True, top_logprobs=3, **options) == plain


def test_forced_text_takes_no_steps(model, monkeypatch):
    """But for its last token, which may be a part of a longer one."""
    steps = []
    step = model._scheduler._step
    monkeypatch.setattr(model._scheduler, "_step", lambda *args: (steps.append(1), step(*args)))
    text = "x" * 50
    assert model.generate([7, 8, 9], format={"const": text}).text() == f'"{text}"'
    assert len(steps) <= 3


def test_prefix_cache_and_context_shift_change_nothing(model):
    schema = {
        "type": "array",
        "items": {"type": "integer", "minimum": 10, "maximum": 99},
        "minItems": 40,
        "maxItems": 40,
    }
    first = answers(model, schema, seeds=[3])[0]
    assert first[1] == "stop"
    assert answers(model, schema, seeds=[3])[0] == first
    text, reason = answers(model, schema, seeds=[3], num_ctx=64)[0]
    assert reason == "stop"
    jsonschema.validate(json.loads(text), schema)


def test_other_formats_at_the_same_time(model):
    running = [(name, model.generate(PROMPT, format=SCHEMAS[name], seed=4, temperature=1.0)) for name in SCHEMAS]
    for name, generation in running:
        text = generation.text()
        if generation.done_reason == "stop":
            jsonschema.validate(json.loads(text), SCHEMAS[name])


def test_cancelled_answer_ends(model):
    ended = threading.Event()
    chunks = []

    def hear(chunk):
        chunks.append(chunk)
        if chunk.done_reason is not None:
            ended.set()
        elif len(chunks) == 3:
            generation.cancel()

    options = ollamacore.SamplingOptions(num_predict=-1, temperature=1.0, seed=1)
    endless = {"type": "array", "items": {"type": "integer"}, "minItems": 100_000}
    generation = model.submit(PROMPT, options, hear, model.constraint(endless))
    assert ended.wait(60)
    assert chunks[-1].done_reason == "cancelled"
    assert answers(model, {"const": 1}, seeds=[1]) == [("1", "stop")]


def test_stop_string_ends_an_answer(model):
    text, reason = answers(model, {"const": "abc def"}, seeds=[1], stop=("c d",))[0]
    assert (text, reason) == ('"ab', "stop")


@pytest.mark.parametrize("format", [None, ""])
def test_no_format_is_free_text(model, format):
    options = {"seed": 1, "num_predict": 10}
    assert model.generate(PROMPT, format=format, **options).text() == model.generate(PROMPT, **options).text()


def test_bad_format_is_refused_before_anything_runs(model):
    for format in ("yaml", 3, {"type": "x"}, ["json"]):
        with pytest.raises(InvalidFormatError):
            model.generate(PROMPT, format=format)
    with pytest.raises(InvalidOptionError, match="not both"):
        model.generate(PROMPT, format="json", constraint=Choice(model.tokenizer, ["a"]))


def test_deferred_constraint_holds_behind_a_token(model):
    """Until then the answer is the free one."""
    free = model.generate(PROMPT, seed=2, num_predict=10, temperature=1.0)
    tokens = [token for chunk in free for token in chunk.tokens]
    heard = []

    def begins(token):
        heard.append(token)
        return len(heard) == 5

    constraint = Deferred(model.constraint({"const": "answer"}), begins)
    generation = model.generate(PROMPT, seed=2, num_predict=40, temperature=1.0, constraint=constraint)
    found, text = [], ""
    for chunk in generation:
        found += chunk.tokens
        text += chunk.text
    assert found[:5] == heard == tokens[:5]
    assert generation.done_reason == "stop"
    assert text.endswith('"answer"')


def test_deferred_constraint_may_hold_at_once(model):
    """`first` are the tokens of what may stand in front; an answer that begins otherwise is the constraint's."""
    tokens = model.tokenize("ab", add_special=False)
    heard = []

    def begins(token):
        heard.append(token)
        return True

    texts = set()
    for seed in range(30):
        heard.clear()
        constraint = Deferred(model.constraint({"const": 7}), begins, first=tokens[:1])
        text = model.generate([*PROMPT, seed], seed=seed, temperature=2.0, constraint=constraint).text()
        assert heard == (tokens[:1] if text.startswith("a") else [])
        texts.add(text)
    assert texts == {"7", "a7"}


def test_real_model_answers_a_schema(smollm2_path):
    class City(BaseModel):
        city: str
        country: str
        is_capital: bool

    with ollamacore.load(smollm2_path) as model:
        question = [{"role": "user", "content": "Tell me about Paris, the city, as JSON."}]
        generation = model.chat(question, format=City.model_json_schema(), temperature=0.0, num_predict=100)
        answer = City.model_validate_json(generation.text())
        assert "Paris" in answer.city
