"""Bodies that clients really send, and the words Go's decoder finds for broken ones."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.gojson import JSONError, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.sampled_from(["", " x", "\n{}", "}", " 1"]))
def test_loads_reads_the_first_value_and_ignores_the_rest(value, tail):
    text = json.dumps(value)
    if isinstance(value, int) and not isinstance(value, bool) and tail[:1].isdigit():
        return
    assert loads(f" {text}{tail}".encode()) == value


@given(VALUES)
def test_loads_of_every_prefix_of_an_object_says_unexpected_eof(value):
    text = json.dumps({"k": value})
    for cut in range(1, len(text)):
        with pytest.raises(JSONError, match="unexpected EOF"):
            loads(text[:cut].encode())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("x", "invalid character 'x' looking for beginning of value"),
        ("{a}", "invalid character 'a' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 2}', "invalid character '2' after object key:value pair"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
        ("nul!", "invalid character '!' in literal null (expecting 'l')"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ('"a\nb"', r"invalid character '\n' in string literal"),
        (r'"\x"', "invalid character 'x' in string escape code"),
        (r'"\u12g4"', r"invalid character 'g' in \u hexadecimal character escape"),
        ('{"model":NaN}', "invalid character 'N' looking for beginning of value"),
        ('{"a":"b', "unexpected EOF"),
    ],
)
def test_loads_of_broken_text_uses_gos_words(body, text):
    with pytest.raises(JSONError) as caught:
        loads(body.encode())
    assert str(caught.value) == text


@pytest.mark.parametrize("body", [b"", b" \r\n\t"])
def test_loads_of_nothing_is_the_end_of_the_file(body):
    with pytest.raises(EOFError):
        loads(body)


def test_loads_replaces_lone_surrogates_and_bad_utf8():
    body = rb'{"a":"x\ud800y","b":["\udc00"],"\ud800":1}'
    assert loads(body) == {"a": "x\ufffdy", "b": ["\ufffd"], "\ufffd": 1}
    assert loads(b'"a\xffb"') == "a\ufffdb"
    assert loads(rb'"\ud83d\ude00" trailing') == "\U0001f600"


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 2000 + "]" * 2000, '{"a":' * 2000])
def test_loads_of_deep_nesting_is_an_error_not_a_crash(text):
    with pytest.raises(JSONError, match=r"exceeded max depth|unexpected EOF"):
        loads(text.encode())
