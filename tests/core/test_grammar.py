"""Grammars of JSON and of JSON schemas: what they take, what they refuse, and which tokens they allow."""

import json
import random
from array import array

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from ollamacore import InvalidFormatError
from ollamacore._core import Grammar, Matcher, Spellings
from ollamacore.errors import EngineError, InvalidOptionError
from ollamacore.grammar import FormatCache, compile_format
from ollamacore.grammar.schema import schema_grammar
from ollamacore.tokenizer import Tokenizer
from tests.core.vocabularies import CONTROL, bpe, spm

MERGES = [("{", '"'), ('"', ":"), ('":', " "), ("a", "b"), ("ab", "c"), (" ", " "), ("\n", " "), ("l", '"'), ("1", "2"),
          ("\\", "u"), (b"\xc3", b"\xa9"), ("a", b"\xc3"), (b"\xe4\xbd", b"\xa0"), (b"\xe4", b"\xbd"), ("}", "}"),
          ('"', "}"), ("e", b"\xf0"), ('"', ","), ("12", "3"), ("]", "}")]  # fmt: skip


def takes(format, text):
    """Whether a text, as JSON or as it stands, is a whole answer."""
    matcher = Matcher(compile_format(format))
    return matcher.accept(text.encode() if isinstance(text, str) else text) and matcher.may_end


def one(**keywords):
    return {"type": "object", "properties": {"x": keywords}, "required": ["x"]}


# ---- keywords ----


class Shape(BaseModel):
    """Members of all kinds."""

    name: str
    size: float | None = None
    tags: list[str] = []
    corner: tuple[int, int] = (0, 0)


class Tree(BaseModel):
    value: int = Field(ge=0, lt=10)
    children: list["Tree"] = []


BIG = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}, "c": {}}, "required": ["b"]}
OPEN = {"type": "object", "properties": {"ab": {"type": "integer"}, 'a"': {}}, "additionalProperties": {"type": "null"}}

#: format, texts that are answers, texts that are not
KEYWORDS = {
    "json": (
        "json",
        ['{}', '{"a":1}', '{"a": [1, -2.5e+3, true, null, {"b": []}]}', '{\n  "a": "\\u00e9\\ud83d\\ude00"\n}', '{ }'],
        ['[]', '1', '{"a":}', '{"a":1,}', '{a:1}', '{"a":01}', '{"a":"\\x"}', '{"a":"\\ud83d"}', '{"a":"\n"}', '{}}',
         '{"a":1} ', ' {}', '{"a":1e999}', '{"a"  :1}', b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\x80"}',
         '{"a":-}', '{"a":1.}', '{"a":.5}', '{"a":+1}', '{"a":NaN}', '{"a":1' + '0' * 20 + '}', '{' + ' ' * 99 + '}'],
    ),
    "any": ({}, ['{"a": [1]}'], ['[]', '"a"']),
    "string": ({"type": "string"}, ['""', '"\u00e9\U0001f600 \\n\\"\\/"'], ['a', '"', '"\t"']),
    "lengths": (
        {"type": "string", "minLength": 2, "maxLength": 3},
        ['"ab"', '"abc"', '"\u00e9\U0001f600"', '"\\n\\u00e9a"', '"\\ud83d\\ude00a"'],
        ['"a"', '"abcd"', '"\U0001f600"', '"\\ud83d\\ude00"'],
    ),
    "integer": ({"type": "integer"}, ["0", "-7", "1234567890123456"], ["1.5", "01", "-", "1e3", "1" * 20]),
    "number": ({"type": "number"}, ["0", "-0.5", "1e9", "12.25E-7"], ["1.", ".5", "1e", "--1", "1e999", "0x1"]),
    "range": (
        {"type": "integer", "minimum": -12, "maximum": 105},
        ["-12", "-9", "-1", "0", "9", "10", "99", "100", "105"],
        ["-13", "-20", "-100", "106", "110", "1000", "-0", "007"],
    ),
    "open range": (
        {"type": "integer", "exclusiveMinimum": 9, "exclusiveMaximum": 12}, ["10", "11"], ["9", "12", "1", "-10"]
    ),
    "at least": ({"type": "integer", "minimum": 42}, ["42", "99", "123456"], ["41", "4", "0", "-50"]),
    "at most": ({"type": "integer", "maximum": -3}, ["-3", "-10", "-99999"], ["-2", "3", "0"]),
    "fraction": (
        {"type": "number", "minimum": 0, "maximum": 1},
        ["0", "1", "0.5", "0.0001", "1.0", "1.00"], ["1.01", "-0.5", "2", "10", "1e0"],
    ),
    "fraction, open": (
        {"type": "number", "exclusiveMinimum": 0.25, "exclusiveMaximum": 2.5},
        ["0.251", "0.3", "1", "2", "2.4999"], ["0.25", "0.250", "0.2", "0", "2.5", "2.50", "3"],
    ),
    "fraction, below zero": (
        {"type": "number", "minimum": -1.5, "maximum": -0.5}, ["-0.5", "-1", "-1.5", "-1.25"],
        ["-1.51", "-0.4", "0", "1"],
    ),
    "old bounds": (
        {"type": "integer", "minimum": 3, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": False},
        ["4", "5"], ["3", "6"],
    ),
    "boolean": ({"type": "boolean"}, ["true", "false"], ["True", "tru", "0"]),
    "null": ({"type": "null"}, ["null"], ["none", ""]),
    "types": ({"type": ["string", "null", "integer"]}, ['"a"', "null", "7"], ["7.5", "true", "[]"]),
    "nullable": ({"type": "integer", "nullable": True}, ["1", "null"], ['"1"']),
    "object": ({"type": "object"}, ['{}', '{"a": {"b": 1}}'], ["[]"]),
    "properties": (
        BIG,
        ['{"b": "x"}', '{"a": 1, "b": "x"}', '{"a":1,"b":"x","c":[{}]}', '{\n  "b": "x",\n  "c": null\n}'],
        ['{}', '{"a": 1}', '{"b": "x", "a": 1}', '{"b": "x", "d": 1}', '{"a": "1", "b": "x"}', '{"b": "x",}'],
    ),
    "additional": (
        OPEN,
        ['{}', '{"ab": 1}', '{"z": null}', '{"ab": 1, "a\\"": [], "z": null, "abc": null, "a": null, "": null}'],
        ['{"z": 1}', '{"ab": null}', '{"ab": 1, "ab": null}', '{"\\u0061b": null}', '{"z": null, "ab": null}'],
    ),
    "map": (
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 2},
        ['{"a": 1}', '{"a": 1, "b": 2}'], ['{}', '{"a": null}', '{"a": 1, "b": 2, "c": 3}'],
    ),
    "closed": ({"type": "object", "additionalProperties": False}, ["{}"], ['{"a": 1}']),
    "required alone": ({"type": "object", "required": ["b"]}, ['{"b": 1}', '{"b": 1, "c": 2}'], ["{}", '{"c": 1}']),
    "property names": (
        {"type": "object", "propertyNames": {"enum": ["p", "q"]}, "additionalProperties": {"type": "integer"}},
        ['{"p": 1}', '{}'], ['{"r": 1}'],
    ),
    "pattern properties": (
        {"type": "object", "patternProperties": {"^[a-z]$": {"type": "integer"}, "^_": {"type": "null"}}},
        ['{"p": 1}', '{}', '{"_": null}'], ['{"pp": 1}', '{"p": null}'],
    ),
    "items": ({"type": "array", "items": {"type": "integer"}}, ["[]", "[1, 2,3]", "[\n  1\n]"],
              ['["1"]', "[1,]", "[,1]"]),
    "item counts": (
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
        ["[1,2]", "[1,2,3]"], ["[]", "[1]", "[1,2,3,4]"],
    ),
    "no items": ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, ["[]", "[ ]"], ["[1]"]),
    "prefix": (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        ['[1, "a"]'], ["[1]", '["a", 1]', '[1, "a", 2]'],
    ),
    "prefix and items": (
        {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"},
         "minItems": 0, "maxItems": 3},
        ["[]", "[1]", '[1, "a", "b"]'], ['["a"]', '[1, "a", "b", "c"]'],
    ),
    "old tuple": ({"items": [{"type": "integer"}, {"type": "null"}]}, ["[1, null]"], ["[null]"]),
    "enum": (
        {"enum": ["red", "read", "r", 1, None, {"a": [1, 2]}, "\u00e9\""]},
        ['"red"', '"r"', "1", "null", '{"a": [1, 2]}', '"\u00e9\\""'], ['"re"', "2", '"reds"'],
    ),
    "enum of a type": ({"type": "string", "enum": ["a", 1, None]}, ['"a"'], ["1", "null"]),
    "const": ({"const": "yes"}, ['"yes"'], ['"no"', '"ye"']),
    "any of": ({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}, ["1", "[1]"],
               ['"1"']),
    "one of": (
        {"oneOf": [one(const="a"), one(const="b")], "discriminator": {}}, ['{"x": "a"}', '{"x": "b"}'], ['{"x": "c"}']
    ),
    "any of beside": (
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
         "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        ['{"a": 1}', '{"b": 1}', '{"a": 1, "b": 1}'], ["{}"],
    ),
    "all of": (
        {"allOf": [one(type="integer", minimum=3), {"properties": {"x": {"maximum": 5}, "y": {"type": "null"}}},
                   {"required": ["y"]}]},
        ['{"x": 4, "y": null}'], ['{"x": 6, "y": null}', '{"x": 4}'],
    ),
    "all of types": ({"allOf": [{"type": ["number", "null"]}, {"type": ["integer", "string"]}]}, ["1"],
                     ["1.5", "null"]),
    "reference": (
        {"$defs": {"a/b": {"type": "integer"}}, **one(**{"$ref": "#/$defs/a~1b", "maximum": 3})},
        ['{"x": 3}'], ['{"x": 4}', '{"x": null}'],
    ),
    "recursion": (
        {"type": "object", "properties": {"n": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["n"]},
        ['{"n": null}', '{"n": {"n": {"n": null}}}'], ['{"n": {}}', '{"n": 1}'],
    ),
    "pydantic": (
        Shape.model_json_schema(),
        ['{"name": "a"}', '{"name": "a", "size": null, "tags": ["b"], "corner": [1, 2]}'],
        ['{"name": "a", "corner": [1]}', '{"size": 1.0}'],
    ),
    "pydantic, recursive": (
        Tree.model_json_schema(),
        ['{"value": 3}', '{"value": 9, "children": [{"value": 0}, {"value": 1, "children": []}]}'],
        ['{"value": 10}', '{"value": 3, "children": [{}]}'],
    ),
    "date": ({"format": "date"}, ['"2024-02-29"', '"1999-12-31"'],
             ['"2023-02-29"', '"2024-13-01"', '"2024-04-31"', '"x"']),
    "time": ({"format": "time"}, ['"23:59:59Z"', '"00:00:00.25+02:00"'], ['"24:00:00Z"', '"12:00"']),
    "date-time": ({"format": "date-time"}, ['"2024-01-31T01:02:03Z"'], ['"2024-01-31"', '"2024-01-31 01:02:03Z"']),
    "uuid": ({"format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123e4567"']),
    "other format": ({"type": "string", "format": "email"}, ['"anything"'], ["1"]),
    "not looked at": ({"type": "integer", "not": {"const": 3}, "multipleOf": 2, "title": "T"}, ["3"], ["a"]),
}  # fmt: skip


@pytest.mark.parametrize("name", KEYWORDS)
def test_keyword_takes_and_refuses(name):
    format, good, bad = KEYWORDS[name]
    assert [text for text in good if not takes(format, text)] == []
    assert [text for text in bad if takes(format, text)] == []


PATTERNS = {
    r"^[a-c]{2,3}-\d+$": (["ab-1", "abc-99"], ["a-1", "abcc-1", "ab-", "xab-1"]),
    r"[0-9]{3}": (["123"], ["12", "1234"]),
    r"^(foo|ba[rz])?$": (["", "foo", "bar", "baz"], ["ba", "foobar"]),
    r"^a.*z$": (["az", "abcz", 'a"\\z', "a\u00e9z"], ["a", "ab", "a\nz"]),
    r"^.{2}$": (["ab", "\u00e9\U0001f600"], ["a", "abc"]),
    r"^[^a-y]+?$": (["z", "\u00e9\n", '"\\', "\U0010ffff"], ["a", "", "zy"]),
    r"^\w+@\w+\.(?:com|org)$": (["me_2@x.org"], ["me@x.net", "@x.org", "me@xxorg"]),
    r"^(?P<a>x)(?:y){0}z$": (["xz"], ["xyz"]),
    r"^(a+b?)*$": (["", "aab", "abaa"], ["b", "abb"]),
    r"^(a?){0,3}$": (["", "aaa"], ["aaaa"]),
    r"^\x41[\u00e9-\u00eb]\t[\]\-\\]$": (["A\u00ea\t]", "A\u00e9\t-", "A\u00eb\t\\"], ["A\u00e8\t]", "A\u00e9 ]"]),
    r"^\S\D\W[-a][a-]$": (["x_ aa", "xx!--"], [" x!aa", "x1!aa", "xxxaa"]),
    r"^[\uac00-\ud7a3\U]$".replace(r"\U", "\U0001f600-\U0001f64f"): (["\ud55c", "\U0001f610"], ["a", "\U0001f650"]),
    r"^a|b$": (["a", "b"], ["ab", ""]),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_takes_and_refuses(pattern):
    good, bad = PATTERNS[pattern]
    for ascii_only in (False, True):
        spelled = [json.dumps(text, ensure_ascii=ascii_only) for text in good if not ascii_only or text.isascii()]
        assert [text for text in spelled if not takes({"pattern": pattern}, text)] == []
    assert [text for text in bad if takes({"pattern": pattern}, json.dumps(text, ensure_ascii=False))] == []


BAD_PATTERNS = ["(", ")", "a)", "[a", "*a", "a**", "(?=a)", "(?i)a", r"\1", r"\b", "a{3,1}", "a{1000000}", "a$b",
                "x(^a)", "a{", "\\", "[z-a]", r"[\d-z]x\q", "(" * 101 + ")" * 101, "a" * 10_001, r"\u{110000}",
                "|*"]  # fmt: skip


@pytest.mark.parametrize("pattern", BAD_PATTERNS)
def test_bad_pattern_is_refused(pattern):
    with pytest.raises(InvalidFormatError, match="pattern"):
        compile_format({"type": "string", "pattern": pattern})


@pytest.mark.parametrize("format", [None, ""])
def test_no_format_is_no_grammar(format):
    assert compile_format(format) is None


DEEP = {"type": "null"}
for _ in range(64):
    DEEP = {"type": "array", "items": DEEP}

BAD_SCHEMAS = [
    ("yaml", "expected \"json\" or a valid JSON Schema object"),
    ([1], "expected \"json\" or a valid JSON Schema object"),
    ({"type": "strin"}, "the type 'strin' is unknown"),
    ({"type": []}, "the type \\[\\] is unknown"),
    ({"type": 3}, "unknown"),
    ({"properties": [1]}, "'properties' is no object"),
    (one(required=3), "'required' is no list"),
    ({"type": "object", "required": [1]}, "'required' is no list of strings"),
    ({"enum": 3}, "'enum' is no list"),
    ({"enum": []}, "nothing can match"),
    ({"enum": [object()]}, "not JSON serializable|cannot be written"),
    ({"const": float("nan")}, "cannot be written"),
    ({"anyOf": []}, "'anyOf' is empty"),
    ({"anyOf": 3}, "'anyOf' is no list"),
    ({"allOf": [3]}, "3 is no schema"),
    ({"items": "x"}, "'x' is no schema"),
    ({"minLength": -1}, "'minLength' is no count"),
    ({"maxLength": 1.5}, "'maxLength' is no count"),
    ({"maxItems": True}, "'maxItems' is no count"),
    ({"maxItems": 1 << 40}, "'maxItems' is too large"),
    ({"minimum": "1"}, "'minimum' is no number"),
    ({"type": "integer", "minimum": 1e300}, "more than 30 digits"),
    ({"pattern": 3}, "'pattern' is no string"),
    ({"$ref": 3}, "does not lead into the schema"),
    ({"$ref": "http://example.com/schema"}, "does not lead into the schema"),
    ({"$ref": "#/$defs/absent"}, "leads nowhere"),
    ({"$ref": "#/enum/7", "enum": [1]}, "leads nowhere"),
    ({"$ref": "#"}, "nothing can match"),
    ({"$ref": "#", "type": "string"}, "without end"),
    ({"allOf": [{"$ref": "#"}]}, "without end"),
    ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "differ in 'pattern'"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "nothing can match"),
    ({"allOf": [{"const": 1}, {"const": 2}]}, "nothing can match"),
    ({"allOf": [{"required": 3}, {"required": ["a"]}]}, "'required' has a wrong type"),
    ({"allOf": [{"anyOf": [{"minimum": n} for n in range(20)]}, {"anyOf": [{"maximum": n} for n in range(20)]}]},
     "too many alternatives"),
    ({"minLength": 3, "maxLength": 2}, "nothing can match"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "nothing can match"),
    ({"type": "array", "items": False, "minItems": 1}, "nothing can match"),
    (one(**{"$ref": "#"}), "nothing can match"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "nothing can match"),
    ({"type": "object", "additionalProperties": None}, "None is no schema"),
    ({"patternProperties": [1]}, "'patternProperties' is no object"),
    ({"anyOf": [DEEP, {"x": [DEEP]}], "y": {"items": DEEP}, "properties": {1: {}}}, "no string|nested"),
    ({"properties": {str(n): {} for n in range(60_000)}}, "too large"),
    ({"enum": ["x" * 1_100_000]}, "too large"),
    ({"enum": [str(n) * 9 for n in range(40_000)]}, "too large"),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(BAD_SCHEMAS)))
def test_bad_schema_is_refused_in_words(index):
    format, words = BAD_SCHEMAS[index]
    with pytest.raises(InvalidFormatError, match=words):
        compile_format(format)


def test_depth_is_limited():
    assert takes(DEEP, "[]")
    with pytest.raises(InvalidFormatError, match="nested more than 128 deep"):
        compile_format(json.loads('{"items": ' * 129 + "{}" + "}" * 129))
    bottomless = {}
    bottomless["items"] = bottomless
    with pytest.raises(InvalidFormatError, match="nested more than 128 deep"):
        compile_format(bottomless)


HOSTILE = [
    {"$defs": {"a": {"allOf": [one(**{"$ref": "#/$defs/a"}), {"properties": {"x": {"$ref": "#/$defs/a"}}}]}},
     "$ref": "#/$defs/a"},
    {"allOf": [{"properties": {str(n): {} for n in range(20_000)}}],
     "anyOf": [{"minProperties": n} for n in range(2000)]},
    {"anyOf": [{"oneOf": [{"anyOf": [{"maximum": k}], "minimum": n} for k in range(40)]} for n in range(40)],
     "oneOf": [{"type": "integer"}] * 40},
    {"pattern": "^(((a{1,9999}){1,9999}){1,9999}){1,9999}$"},
    {"pattern": "^" + "(a?" * 90 + ")*" * 90 + "$"},
    {"pattern": "^" + "a?" * 3000 + "b$"},
    {"pattern": "^" + "|".join(["a*b*c*"] * 800) + "$"},
    {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(3000)}},
    {"anyOf": [{"type": "string", "maxLength": n} for n in range(4000)]},
    {"type": "array", "minItems": 2_000_000_000, "items": {"type": "array", "minItems": 2_000_000_000, "items": {}}},
    {"type": "string", "minLength": 2_000_000_000},
    {"enum": [f"{n:05}" for n in range(20_000)]},
    {"$defs": {"n": {"anyOf": [{"type": "array", "maxItems": n, "items": {"$ref": "#/$defs/n"}} for n in range(1, 9)]}},
     "$ref": "#/$defs/n"},
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_hostile_schema_costs_little(index, words):
    """It is refused or compiled, and then followed, with bounded work; what it allows is never nothing."""
    tokenizer, spellings = words
    try:
        grammar = compile_format(HOSTILE[index])
    except InvalidFormatError:
        return
    walk(Matcher(grammar), tokenizer, spellings, random.Random(1), steps=40)


# ---- tokens ----


@pytest.fixture(scope="module")
def words():
    """A tokenizer with tokens that cross the borders of JSON's tokens and of characters."""
    tokenizer = Tokenizer.from_gguf(
        bpe(*MERGES, special=[("<end>", CONTROL), ("<call>", 4)], eos_token_id=256 + len(MERGES))
    )
    return tokenizer, Spellings(tokenizer.vocabulary, tokenizer.n_vocab, tokenizer.end_ids)


def allowed(matcher, spellings):
    mask = array("I", bytes(4 * -(-spellings.n_vocab // 32)))
    matcher.mask(spellings, mask)
    return [token for token in range(spellings.n_vocab) if mask[token // 32] >> token % 32 & 1]


def walk(matcher, tokenizer, spellings, choices, steps):
    """Take random tokens until the text ends or `steps` are done; the text."""
    text = b""
    for _ in range(steps):
        if matcher.must_end:
            break
        token = choices.choice(allowed(matcher, spellings))
        if token in tokenizer.end_ids:
            break
        text += tokenizer.token_bytes(token)
        assert matcher.accept(tokenizer.token_bytes(token))
    return text


TEXTS = ['{"ab": 12, "z": [true, "a\u00e9\u4f60\\u00e9l"]}', '{\n  "abc": "abcabc", "a": {"l": -123.5e1}}']
MASKS = {
    "json": ("json", TEXTS),
    "closed": (BIG, ['{"a": 123, "b": "abc \u00e9\u4f60", "c": [{"a": 12}]}']),
    "open": ({**OPEN, "additionalProperties": True}, ['{"ab": 12, "a\\"": "l", "abc": [1]}']),
    "short": ({"type": "array", "items": {"type": "string", "maxLength": 4}}, ['["abca", "\u00e9\u4f60", ""]']),
    "pattern": ({"pattern": "^[^b]*bc?.{2}$"}, ['"a\u00e9\u4f60abcab"']),
    "either": (
        {"anyOf": [{"type": "string", "maxLength": 2}, {"const": "abcabc"}, {"pattern": "^a.+$"}]},
        ['"abcabc"'],
    ),
}


@pytest.mark.parametrize("name", MASKS)
def test_mask_has_the_tokens_whose_bytes_fit(name, words):
    """Whatever is skipped, allowed in bulk, or remembered: token by token it is the same."""
    tokenizer, spellings = words
    format, texts = MASKS[name]
    grammar = compile_format(format)
    for text in (text.encode() for text in texts):
        for at in range(len(text)):
            matcher = Matcher(grammar)
            assert matcher.accept(text[:at])
            fitting = []
            for token in range(tokenizer.n_vocab):
                data = tokenizer.token_bytes(token)
                if data and token not in tokenizer.end_ids and matcher.accept(data):
                    fitting.append(token)
                    matcher = Matcher(grammar)
                    matcher.accept(text[:at])
            assert allowed(matcher, spellings) == fitting
            assert allowed(matcher, spellings) == fitting, "the mask that was kept"


def test_end_is_allowed_where_the_text_may_end(words):
    tokenizer, spellings = words
    matcher = Matcher(compile_format({"type": "integer"}))
    assert not set(allowed(matcher, spellings)) & set(tokenizer.end_ids)
    matcher.accept(b"12")
    assert set(allowed(matcher, spellings)) > set(tokenizer.end_ids)
    assert matcher.may_end
    assert not matcher.must_end


def test_refused_bytes_change_nothing(words):
    _, spellings = words
    matcher = Matcher(compile_format(BIG))
    matcher.accept(b'{"a": 1, ')
    before = allowed(matcher, spellings)
    assert not matcher.accept(b'"b": "xyz", "d')
    assert allowed(matcher, spellings) == before
    assert matcher.accept(b'"b": "xyz"}')
    assert matcher.must_end


def test_forced_text_goes_to_the_next_choice():
    matcher = Matcher(compile_format({"enum": ["banana bread", "banana split"]}))
    assert matcher.forced() == b'"banana '
    assert matcher.accept(b'"banana b')
    assert matcher.forced() == b'read"'
    assert matcher.accept(b'read"')
    assert (matcher.forced(), matcher.must_end) == (b"", True)


def test_many_masks_are_remembered_within_bounds(words):
    """More states than are kept, used in turn: the oldest go, and come back the same."""
    _, spellings = words
    grammar = compile_format({"type": "string", "maxLength": 700})
    seen = {}
    for _ in range(2):
        matcher = Matcher(grammar)
        matcher.accept(b'"')
        for length in range(700):
            tokens = seen.setdefault(length, allowed(matcher, spellings))
            assert allowed(matcher, spellings) == tokens
            matcher.accept(b"x")
        assert matcher.forced() == b'"'


def test_a_long_text_keeps_no_frames():
    """Every item of an array makes frames: those of a million bytes would show."""
    matcher = Matcher(compile_format("json"))
    assert matcher.accept(b'{"a": [')
    for _ in range(4000):
        assert matcher.accept(b'{"b": [1, 2')
        assert matcher.accept(b"]}, ")
    assert matcher.accept(b'{"b": [1, 2' + b', {"c": "d"}' * 40_000)
    assert matcher.accept(b"]}]}")
    assert matcher.must_end


def test_nesting_of_free_values_has_an_end(words):
    _, spellings = words
    matcher, depth = Matcher(compile_format("json")), 0
    matcher.accept(b'{"a": ')
    while depth < 1000 and matcher.accept(b"["):
        depth += 1
    assert 100 < depth < 600
    assert ord('"') in allowed(matcher, spellings)
    assert matcher.accept(b"1" + b"]" * depth + b"}")


def test_vocabulary_that_cannot_spell_an_answer_is_an_error():
    tokenizer = Tokenizer.from_gguf(spm("a", "b", byte_tokens=False))
    spellings = Spellings(tokenizer.vocabulary, tokenizer.n_vocab, tokenizer.end_ids)
    with pytest.raises(EngineError, match="cannot spell"):
        allowed(Matcher(compile_format("json")), spellings)


def test_unsound_nodes_are_refused():
    bytes_, fork = 1, 2
    sets = array("Q", [1, 0, 0, 0])
    for nodes, edges, root in (
        ([9, 0, 0, 0, 0], [], 0),
        ([0] * 5, [], 1),
        ([bytes_, 5, 0, 0, 0], [], 0),
        ([bytes_, 0, 1, 0, 0], [], 0),
        ([fork, 0, 0, 2, 0], [0], 0),
        ([fork, 0, 0, 1, 0], [3], 0),
        ([fork, 0, 0, 1, 0] * 2, [1], 0),
    ):
        with pytest.raises(InvalidOptionError):
            Grammar(array("I", nodes), array("I", edges), sets, root)
    with pytest.raises(InvalidOptionError, match="empty"):
        Grammar(array("I", [0] * 5), array("I"), array("Q", [0] * 4), 0)
    with pytest.raises(ValueError, match="no nodes"):
        Grammar(array("I", [0] * 4), array("I"), sets, 0)


# ---- schemas at random ----


@st.composite
def schemas(draw, depth=3):
    """(schema, a strategy of values that it describes)"""
    kind = draw(
        st.sampled_from(["integer", "string", "enum", "boolean", "array", "object", "any"][: 7 if depth else 4])
    )
    if kind == "integer":
        low, high = sorted(draw(st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000))))
        return {"type": "integer", "minimum": low, "maximum": high}, st.integers(low, high)
    if kind == "string":
        least, more = draw(st.integers(0, 3)), draw(st.integers(0, 4))
        text = st.text(st.characters(codec="utf-8"), min_size=least, max_size=least + more)
        return {"type": "string", "minLength": least, "maxLength": least + more}, text
    if kind == "enum":
        values = draw(st.lists(st.one_of(st.text(st.characters(codec="utf-8"), max_size=5), st.integers()), min_size=1))
        return {"enum": values}, st.sampled_from(values)
    if kind == "boolean":
        return {"type": "boolean"}, st.booleans()
    if kind == "array":
        item, values = draw(schemas(depth - 1))
        least, more = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        schema = {"type": "array", "items": item, "minItems": least, "maxItems": least + more}
        return schema, st.lists(values, min_size=least, max_size=least + more)
    if kind == "any":
        (one, values), (other, others) = draw(schemas(depth - 1)), draw(schemas(depth - 1))
        return {"anyOf": [one, other]}, st.one_of(values, others)
    names = draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=4), unique=True, max_size=4))
    parts = {name: draw(schemas(depth - 1)) for name in names}
    required = [name for name in names if draw(st.booleans())]
    known = st.fixed_dictionaries(
        {name: parts[name][1] for name in required},
        optional={name: parts[name][1] for name in names if name not in required},
    )
    values = known.map(lambda value: {name: value[name] for name in names if name in value})
    schema = {"type": "object", "properties": {name: part for name, (part, _) in parts.items()}, "required": required}
    if draw(st.booleans()):
        schema["additionalProperties"] = {"type": "null"}
        more = st.dictionaries(
            st.text(st.characters(codec="utf-8"), max_size=3).filter(lambda n: n not in names), st.none()
        )
        values = st.tuples(values, more).map(lambda both: both[0] | both[1])
    return schema, values


def is_valid(schema, text):
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return jsonschema.Draft202012Validator(schema).is_valid(value)


@settings(max_examples=150)
@given(st.data())
def test_grammar_takes_values_of_its_schema_and_no_others(data):
    schema, values = data.draw(schemas())
    value = data.draw(values)
    wrapped = {"type": "object", "properties": {"v": schema}, "required": ["v"], "additionalProperties": False}
    indent = data.draw(st.sampled_from([None, 1, 4]))
    text = json.dumps({"v": value}, ensure_ascii=False, indent=indent)
    assert takes(wrapped, text)
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(['"', ",", "}", "]", "0", "9", "-", "a", "\\", " ", "\n", "\u00e9", ""]))
    for changed in (text[:at], text[:at] + other + text[at + 1 :], text[:at] + other + text[at:]):
        if takes(wrapped, changed):
            assert is_valid(wrapped, changed), changed


@settings(max_examples=60)
@given(st.data(), st.integers(0, 2**32))
def test_random_tokens_make_a_value_of_the_schema(words, data, seed):
    tokenizer, spellings = words
    schema, _ = data.draw(schemas(depth=2))
    matcher, choices = Matcher(compile_format(schema or {"type": "null"})), random.Random(seed)
    text = walk(matcher, tokenizer, spellings, choices, steps=600)
    if matcher.may_end:
        assert is_valid(schema, text.decode())


def test_grammars_are_kept_and_let_go():
    schema = one(type="string", maxLength=123)
    assert compile_format(schema) is compile_format(json.loads(json.dumps(schema)))
    made = []

    def make():
        made.append(schema_grammar(schema))
        return made[-1]

    cache = FormatCache(3 * compile_format(schema).size)
    for key in ("a", "b", "a", "c", "a", "b"):
        cache.get(key, make)
    assert len(made) == 4, "b was used the longest ago when c came"


def test_order_of_properties_is_part_of_a_schema():
    one_way = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]}
    other_way = {"type": "object", "properties": {"b": {}, "a": {}}, "required": ["a", "b"]}
    assert takes(one_way, '{"a": 1, "b": 2}')
    assert takes(other_way, '{"b": 2, "a": 1}')
    assert not takes(other_way, '{"a": 1, "b": 2}')
