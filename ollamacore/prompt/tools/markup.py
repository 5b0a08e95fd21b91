"""Calls written as tags around plain values, which get their types from the schema of the tool."""

import re
from collections.abc import Mapping
from typing import Any

from ollamacore.prompt.tools.calls import Call, MalformedError, Schemas, call_of, clean, decoded, typed

_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?=</function>|<function=|\Z)", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
_NAME = re.compile(r'\s*"([^"]+)"\s*>')
_PARAM = re.compile(r'<param name="([^"]+)">(.*?)(?:</param>|(?=<param name=)|\Z)', re.DOTALL)
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|\Z)", re.DOTALL)


def read_functions(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """<function=name><parameter=key>value</parameter>...</function>, once or more."""
    calls = [_function(match[1], match[2], schemas) for match in _FUNCTION.finditer(text)]
    if not calls:
        raise MalformedError("no function")
    return calls, len(text)


def read_function(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """The same where `<function=` was the opening tag."""
    return read_functions(f"<function={text}", schemas)[0], len(text)


def read_named_function(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """"name"><param name="key">value</param>... where `<function name=` was the opening tag."""
    head = _NAME.match(text)
    if head is None:
        raise MalformedError("no name")
    pairs = ((match[1], _lines(match[2])) for match in _PARAM.finditer(text, head.end()))
    return [_call(head[1], pairs, schemas)], len(text)


def read_pairs(text: str, schemas: Schemas) -> tuple[list[Call], int]:
    """name<arg_key>key</arg_key><arg_value>value</arg_value>..."""
    name = text.partition("<arg_key>")[0].strip()
    if not re.fullmatch(r"[\w.\-/:]+", name):
        raise MalformedError("no name")
    return [_call(name, ((match[1], match[2]) for match in _PAIR.finditer(text)), schemas)], len(text)


def _function(name: str, body: str, schemas: Schemas) -> Call:
    if "<parameter=" not in body and body.lstrip().startswith("{"):
        return call_of(name, clean(decoded(body)))
    return _call(name.strip(), ((match[1], _lines(match[2])) for match in _PARAMETER.finditer(body)), schemas)


def _call(name: str, pairs: Any, schemas: Schemas) -> Call:
    parameters: Mapping[str, Any] = schemas.get(name, {})
    return call_of(name, {key.strip(): typed(value, parameters.get(key.strip())) for key, value in pairs})


def _lines(value: str) -> str:
    """A value without the line ends that set it apart."""
    return value.removeprefix("\n").removesuffix("\n")
