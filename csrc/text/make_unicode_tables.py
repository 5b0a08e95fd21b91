"""Write unicode_tables.h, the character classes that the pre-tokenizers ask for.

Command (from the repository root):  python3.13 csrc/text/make_unicode_tables.py > csrc/text/unicode_tables.h

A class is four bits, named in unicode.h: groups of general categories, and white space (White_Space, which is what
\\s matches in the regular expressions of tokenizers). Stage 1 maps code point / 256 to a block, stage 2 holds 128
bytes for each block. The interpreter decides the version of Unicode, so use a recent one.
"""

import sys
import unicodedata

CODE_POINTS = 0x110000
BLOCK = 256
#: str.isspace() adds the four information separators, which do not have the property White_Space.
NOT_WHITE_SPACE = frozenset(range(0x1C, 0x20))
#: general category, whole or its first letter -> class; the rest is 0, other
CLASSES = {"Lu": 1, "Lt": 1, "Ll": 2, "Lm": 3, "Lo": 3, "M": 4, "N": 5, "P": 6, "S": 7}
WHITE_SPACE = 8


def character_class(code_point: int) -> int:
    """Four bits that stand for one code point."""
    character = chr(code_point)
    if character.isspace() and code_point not in NOT_WHITE_SPACE:
        return WHITE_SPACE
    category = unicodedata.category(character)
    return CLASSES.get(category, CLASSES.get(category[0], 0))


def pack(start: int) -> bytes:
    """One block: two code points a byte, the first in the low bits."""
    return bytes(
        character_class(code_point) | character_class(code_point + 1) << 4
        for code_point in range(start, start + BLOCK, 2)
    )


def rows(values: bytes, width: int = 20) -> str:
    """The body of a C array."""
    lines = [values[i : i + width] for i in range(0, len(values), width)]
    return ",\n".join("    " + ", ".join(map(str, line)) for line in lines)


def main() -> None:
    """Print the header."""
    blocks: dict[bytes, int] = {}
    stage1 = bytes(blocks.setdefault(pack(start), len(blocks)) for start in range(0, CODE_POINTS, BLOCK))
    stage2 = b"".join(blocks)
    version = unicodedata.unidata_version
    sys.stdout.write(
        f"""/* unicode_tables.h - character classes of Unicode {version}, generated; unicode.h reads them.
 * Command: python3.13 csrc/text/make_unicode_tables.py > csrc/text/unicode_tables.h
 */
#ifndef OC_TEXT_UNICODE_TABLES_H
#define OC_TEXT_UNICODE_TABLES_H

#include <stdint.h>

static const uint8_t oc_class_stage1[{len(stage1)}] = {{
{rows(stage1)}}};

static const uint8_t oc_class_stage2[{len(stage2)}] = {{
{rows(stage2)}}};

#endif
"""
    )


if __name__ == "__main__":
    main()
