"""Write unicode_tables.h, the classes that pre-tokenizers ask for, or wordpiece_tables.h, what BERT's normalizer makes.

Commands (from the repository root):  python3.13 csrc/text/make_tables.py unicode > csrc/text/unicode_tables.h
                                      python3.13 csrc/text/make_tables.py wordpiece > csrc/text/wordpiece_tables.h

A table has two stages: the first maps a block of code points to what the second holds for it. Classes for
pre-tokenizers are four bits, named in unicode.h: groups of general categories, and white space (White_Space, which is
what \\s matches in the regular expressions of tokenizers). Classes for WordPiece are two bits: 0 part of a word,
1 white space, 2 a word of its own (punctuation, and every symbol of ASCII), 3 dropped (control and format characters,
U+FFFD). A fold is the canonical decomposition without nonspacing marks, in lower case; Hangul syllables, whose
decomposition is arithmetic, are left out. It is an index into the pool, where a length stands before the characters;
index 0 is the character itself. The interpreter decides the version of Unicode, so use a recent one.
"""

import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence

CODE_POINTS = 0x110000
CLASS_BLOCK = 256
FOLD_BLOCK = 128
#: str.isspace() adds the four information separators, which do not have the property White_Space.
NOT_WHITE_SPACE = frozenset(range(0x1C, 0x20))
#: general category, whole or its first letter -> class; the rest is 0, other
CLASSES = {"Lu": 1, "Lt": 1, "Ll": 2, "Lm": 3, "Lo": 3, "M": 4, "N": 5, "P": 6, "S": 7}
WHITE_SPACE = 8
WORD, SPACE, ALONE, DROPPED = range(4)
HANGUL = range(0xAC00, 0xD7A4)

#: an array of the header: type and name, values
Array = tuple[str, Sequence[int]]


def unicode_class(code_point: int) -> int:
    """Four bits that stand for one code point."""
    character = chr(code_point)
    if character.isspace() and code_point not in NOT_WHITE_SPACE:
        return WHITE_SPACE
    category = unicodedata.category(character)
    return CLASSES.get(category, CLASSES.get(category[0], 0))


def wordpiece_class(code_point: int) -> int:
    """Two bits that stand for one code point."""
    character = chr(code_point)
    category = unicodedata.category(character)
    if character not in "\t\n\r" and (category in ("Cc", "Cf", "Co") or code_point == 0xFFFD):
        return DROPPED
    if character.isspace():
        return SPACE
    is_ascii_symbol = 0x20 < code_point < 0x7F and not character.isalnum()
    return ALONE if is_ascii_symbol or category[0] == "P" else WORD


def fold(code_point: int) -> tuple[int, ...]:
    """The characters that stand for one code point."""
    if 0xD800 <= code_point < 0xE000 or code_point in HANGUL:
        return (code_point,)
    parts = unicodedata.normalize("NFD", chr(code_point))
    kept = (part.lower() for part in parts if unicodedata.category(part) != "Mn")
    return tuple(ord(character) for character in "".join(kept))


def staged(name: str, second_type: str, block: int, packed: Callable[[range], tuple[int, ...]]) -> Iterator[Array]:
    """Both stages of a table of which `packed` makes the second one's part for a block."""
    blocks: dict[tuple[int, ...], int] = {}
    starts = range(0, CODE_POINTS, block)
    first = [blocks.setdefault(packed(range(start, start + block)), len(blocks)) for start in starts]
    yield f"{'uint8_t' if len(blocks) <= 256 else 'uint16_t'} {name}_stage1", first
    yield f"{second_type} {name}_stage2", [value for part in blocks for value in part]


def classes(name: str, class_of: Callable[[int], int], bits: int) -> Iterator[Array]:
    """A table of classes: the first of those that share a byte is in the low bits."""
    per_byte = 8 // bits

    def packed(block: range) -> tuple[int, ...]:
        found = [class_of(code_point) for code_point in block]
        rest = range(0, len(found), per_byte)
        return tuple(sum(found[at + i] << (bits * i) for i in range(per_byte)) for at in rest)

    return staged(name, "uint8_t", CLASS_BLOCK, packed)


def folds(name: str) -> Iterator[Array]:
    """The table of folds and their pool."""
    pool = [0]
    found: dict[tuple[int, ...], int] = {}

    def index(code_point: int) -> int:
        folded = fold(code_point)
        if folded == (code_point,):
            return 0
        if folded not in found:
            found[folded] = len(pool)
            pool.extend((len(folded), *folded))
        return found[folded]

    yield from staged(name, "uint16_t", FOLD_BLOCK, lambda block: tuple(map(index, block)))
    yield f"uint32_t {name}_pool", pool


def unicode_arrays() -> Iterator[Array]:
    """What unicode_tables.h holds."""
    return classes("oc_class", unicode_class, 4)


def wordpiece_arrays() -> Iterator[Array]:
    """What wordpiece_tables.h holds."""
    yield from classes("oc_wpm_class", wordpiece_class, 2)
    yield from folds("oc_wpm_fold")


#: name -> what the header is for, its arrays
HEADERS = {
    "unicode": ("character classes of Unicode {}, generated; unicode.h reads them", unicode_arrays),
    "wordpiece": ("classes and folds of Unicode {}, generated for wpm.c", wordpiece_arrays),
}


def rows(values: Sequence[int], width: int = 20) -> str:
    """The body of a C array."""
    lines = [values[i : i + width] for i in range(0, len(values), width)]
    return ",\n".join("    " + ", ".join(map(str, line)) for line in lines)


def main(name: str) -> None:
    """Print the header."""
    purpose, arrays = HEADERS[name]
    guard = f"OC_TEXT_{name.upper()}_TABLES_H"
    lines = [
        f"/* {name}_tables.h - {purpose.format(unicodedata.unidata_version)}.",
        f" * Command: python3.13 csrc/text/make_tables.py {name} > csrc/text/{name}_tables.h",
        f" */\n#ifndef {guard}\n#define {guard}\n\n#include <stdint.h>\n",
        *(f"static const {kind}[{len(values)}] = {{\n{rows(values)}}};\n" for kind, values in arrays()),
        "#endif\n",
    ]
    sys.stdout.write("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1])
