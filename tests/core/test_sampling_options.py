"""SamplingOptions.from_mapping: Ollama's defaults, conversions and error texts."""

import dataclasses
import math

import pytest

from ollamacore.errors import InvalidOptionError
from ollamacore.sampling import SamplingOptions

FLOATS = [
    *("temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"),
    *("dry_multiplier", "dry_base", "xtc_probability", "xtc_threshold", "top_n_sigma", "mirostat_tau", "mirostat_eta"),
]
INTEGERS = [
    *("top_k", "repeat_last_n", "seed", "num_predict", "num_keep", "num_ctx"),
    *("dry_allowed_length", "dry_penalty_last_n"),
]


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
        logit_bias={},
        dry_multiplier=0.0,
        dry_base=1.75,
        dry_allowed_length=2,
        dry_penalty_last_n=-1,
        dry_sequence_breakers=("\n", ":", '"', "*"),
        xtc_probability=0.0,
        xtc_threshold=0.1,
        top_n_sigma=-1.0,
        mirostat=0,
        mirostat_tau=5.0,
        mirostat_eta=0.1,
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


@pytest.mark.parametrize("key", ["stop", "dry_sequence_breakers"])
def test_string_options_are_arrays_of_strings(key):
    assert getattr(SamplingOptions.from_mapping({key: ["a", "b"]}), key) == ("a", "b")
    with pytest.raises(InvalidOptionError) as caught:
        SamplingOptions.from_mapping({key: "a"})
    assert str(caught.value) == f'option "{key}" must be of type array'
    with pytest.raises(InvalidOptionError) as caught:
        SamplingOptions.from_mapping({key: ["a", 1]})
    assert str(caught.value) == f'option "{key}" must be of an array of strings'


def test_mirostat_is_a_version():
    assert [SamplingOptions.from_mapping({"mirostat": value}).mirostat for value in (0, 1, 2.9)] == [0, 1, 2]
    with pytest.raises(InvalidOptionError, match="must be 0, 1 or 2, not 3"):
        SamplingOptions.from_mapping({"mirostat": 3})


def test_logit_bias_is_a_map_from_ids_to_numbers():
    options = SamplingOptions.from_mapping({"logit_bias": {"50256": -100, 7: 1.5}})
    assert options.logit_bias == {50256: -100.0, 7: 1.5}
    assert options == SamplingOptions(logit_bias={50256: -100.0, 7: 1.5})
    assert len({options, SamplingOptions()}) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([[1, 2]], 'option "logit_bias" must be of type map'),
        ({"hello": 1}, 'option "logit_bias" must be of a map of token ids'),
        ({"1": "a"}, 'option "logit_bias" must be of type float32'),
        ({"-1": 1}, 'option "logit_bias" must name tokens by ids, which are not negative'),
    ],
)
def test_logit_bias_of_another_shape_is_refused(value, text):
    with pytest.raises(InvalidOptionError) as caught:
        SamplingOptions.from_mapping({"logit_bias": value})
    assert str(caught.value) == text


def test_null_is_skipped_and_unknown_keys_are_ignored():
    assert SamplingOptions.from_mapping({"temperature": None, "tfs_z": 2, "logprobs": True}) == SamplingOptions()


def test_mapping_goes_over_the_base():
    base = SamplingOptions(temperature=0.1, top_k=3, stop=("x",), logprobs=True)
    assert SamplingOptions.from_mapping({"top_k": 5}, base) == dataclasses.replace(base, top_k=5)


def test_integer_beyond_all_floats_is_infinite():
    assert SamplingOptions.from_mapping({"temperature": -(10**400)}).temperature == -math.inf
