"""Write unicode_tables.h, the character classes that the pre-tokenizers ask for.

Command (from the repository root):  python3.13 csrc/text/make_unicode_tables.py > csrc/text/unicode_tables.h

A class is two bits: 0 other, 1 letter (\\p{L}), 2 number (\\p{N}), 3 white space (White_Space, which is what
\\s matches in the regular expressions of tokenizers). Stage 1 maps code point / 256 to a block, stage 2 holds 64
bytes for each block. The interpreter decides the version of Unicode, so use a recent one.
"""

import sys
import unicodedata

CODE_POINTS = 0x110000
BLOCK = 256
#: str.isspace() adds the four information separators, which do not have the property White_Space.
NOT_WHITE_SPACE = frozenset(range(0x1C, 0x20))


def character_class(code_point: int) -> int:
    """Two bits that stand for one code point."""
    character = chr(code_point)
    if character.isspace() and code_point not in NOT_WHITE_SPACE:
        return 3
    return {"L": 1, "N": 2}.get(unicodedata.category(character)[0], 0)


def pack(start: int) -> bytes:
    """One block: four code points a byte, the first in the low bits."""
    return bytes(
        sum(character_class(code_point + i) << (2 * i) for i in range(4))
        for code_point in range(start, start + BLOCK, 4)
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
