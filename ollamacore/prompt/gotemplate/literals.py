"""The values of Go's literals: strings, characters and numbers. ValueError where Go's parser refuses one."""

import re

_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.?))", re.S
)
_NAMED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_INTEGER = re.compile(
    r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*)"
)
_DECIMAL = re.compile(r"[+-]?(?:[0-9](?:_?[0-9])*)?(?:\.(?:[0-9](?:_?[0-9])*)?)?(?:[eE][+-]?[0-9](?:_?[0-9])*)?")
_HEXADECIMAL = re.compile(r"[+-]?0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?[pP][+-]?[0-9]+")
_MAX_INT = 2**63
#: characters of a literal, underscores and leading zeros included
_LONGEST = 256


def unquoted(source: str) -> str:
    """The text of a string in quotation marks or backquotes."""
    if source[0] == "`":
        return source[1:-1].replace("\r", "")
    # Bytes of \x and octal escapes may make up one character: they are put together as bytes.
    pieces: list[bytes] = []
    at, body = 0, source[1:-1]
    for match in _ESCAPE.finditer(body):
        pieces.append(body[at : match.start()].encode(errors="surrogatepass"))
        pieces.append(_escaped(match, source[0]))
        at = match.end()
    pieces.append(body[at:].encode(errors="surrogatepass"))
    return b"".join(pieces).decode(errors="replace")


def _escaped(match: re.Match[str], quote: str) -> bytes:
    named, two, four, eight, octal, _ = match.groups()
    if named is not None and named not in "'\"":
        return _NAMED.get(named, named).encode()
    if named is not None and named == quote:
        return named.encode()
    code = int(two or four or eight or "-1", 16) if octal is None else int(octal, 8)
    if octal is not None or two:
        if not 0 <= code < 256:
            raise ValueError("invalid syntax")
        return bytes((code,))
    if not 0 <= code <= 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError("invalid syntax")
    return chr(code).encode()


def character(source: str) -> int:
    """The number of the character between two apostrophes."""
    body = source[1:-1]
    match = _ESCAPE.fullmatch(body)
    try:
        if match is None:
            found = body
        elif match.group(2) or match.group(5):  # a byte by its number
            return _escaped(match, "'")[0]
        else:
            found = _escaped(match, "'").decode()
    except ValueError:
        found = ""
    if len(found) != 1 or source == "'''":
        raise ValueError(f"malformed character constant: {source}")
    return ord(found)


def number(source: str) -> int | float:
    """A whole number, or a float where the source has a point or an exponent."""
    if _INTEGER.fullmatch(source):
        found = int(_base(source.replace("_", "")), 0) if len(source) <= _LONGEST else _MAX_INT
        if not -_MAX_INT <= found < _MAX_INT:
            raise ValueError(f'integer overflow: "{source[:_LONGEST]}"')
        return found
    if _HEXADECIMAL.fullmatch(source):
        return float.fromhex(source.replace("_", ""))
    if any(map(str.isdigit, source)) and _DECIMAL.fullmatch(source) and set(source) & set(".eE"):
        found_float = float(source.replace("_", ""))
        if found_float in (float("inf"), float("-inf")):
            raise ValueError(f'illegal number syntax: "{source}"')
        return found_float
    raise ValueError(f'illegal number syntax: "{source}"')


def _base(source: str) -> str:
    """Octal numbers with a bare 0, as Python wants to read them."""
    sign, digits = (source[0], source[1:]) if source[0] in "+-" else ("", source)
    return sign + (f"0o{digits}" if len(digits) > 1 and digits.isdigit() and digits[0] == "0" else digits)
