"""SamplingOptions.from_mapping: Ollama's defaults, conversions and error texts."""

import dataclasses
import math

import pytest

from ollamacore.errors import InvalidOptionError
from ollamacore.sampling import SamplingOptions

FLOATS = ["temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"]
INTEGERS = ["top_k", "repeat_last_n", "seed", "num_predict", "num_keep", "num_ctx"]


def test_defaults_are_those_of_ollama():
    assert SamplingOptions.from_mapping({}) == SamplingOptions(
        temperature=0.8,
        top_k=40,
        top_p=0.9,
        min_p=0.0,
        typical_p=1.0,
        repeat_penalty=1.0,
        repeat_last_n=64,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        seed=None,
        stop=(),
        num_predict=-1,
        num_keep=4,
        num_ctx=None,
        logprobs=False,
        top_logprobs=0,
    )


@pytest.mark.parametrize("key", FLOATS)
def test_float_options_take_integers_too(key):
    for value in (0, 1, 0.25, -3.5):
        taken = getattr(SamplingOptions.from_mapping({key: value}), key)
        assert taken == value
        assert type(taken) is float


@pytest.mark.parametrize("key", INTEGERS)
def test_integer_options_truncate_floats(key):
    for value, expected in ((7, 7), (7.9, 7), (-7.9, -7), (-1, -1)):
        taken = getattr(SamplingOptions.from_mapping({key: value}), key)
        assert taken == expected
        assert type(taken) is int


@pytest.mark.parametrize("key", FLOATS)
@pytest.mark.parametrize("value", ["1", True, [1.0], {}])
def test_float_options_refuse_other_types(key, value):
    with pytest.raises(InvalidOptionError) as caught:
        SamplingOptions.from_mapping({key: value})
    assert str(caught.value) == f'option "{key}" must be of type float32'


@pytest.mark.parametrize("key", INTEGERS)
@pytest.mark.parametrize("value", ["1", False, [1], math.nan, math.inf])
def test_integer_options_refuse_other_types(key, value):
    with pytest.raises(InvalidOptionError) as caught:
        SamplingOptions.from_mapping({key: value})
    assert str(caught.value) == f'option "{key}" must be of type integer'


def test_stop_is_an_array_of_strings():
    assert SamplingOptions.from_mapping({"stop": ["a", "b"]}).stop == ("a", "b")
    with pytest.raises(InvalidOptionError) as caught:
        SamplingOptions.from_mapping({"stop": "a"})
    assert str(caught.value) == 'option "stop" must be of type array'
    with pytest.raises(InvalidOptionError) as caught:
        SamplingOptions.from_mapping({"stop": ["a", 1]})
    assert str(caught.value) == 'option "stop" must be of an array of strings'


def test_null_is_skipped_and_unknown_keys_are_ignored():
    assert SamplingOptions.from_mapping({"temperature": None, "mirostat": 2, "logprobs": True}) == SamplingOptions()


def test_mapping_goes_over_the_base():
    base = SamplingOptions(temperature=0.1, top_k=3, stop=("x",), logprobs=True)
    assert SamplingOptions.from_mapping({"top_k": 5}, base) == dataclasses.replace(base, top_k=5)


def test_integer_beyond_all_floats_is_infinite():
    assert SamplingOptions.from_mapping({"temperature": -(10**400)}).temperature == -math.inf
