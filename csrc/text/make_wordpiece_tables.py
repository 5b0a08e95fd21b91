"""Write wordpiece_tables.h: what BERT's normalizer makes of each character.

Command (from the repository root):  python3.13 csrc/text/make_wordpiece_tables.py > csrc/text/wordpiece_tables.h

A class is two bits: 0 part of a word, 1 white space, 2 a word of its own (punctuation, and every symbol of ASCII),
3 dropped (control and format characters, U+FFFD). Stage 1 maps code point / 256 to a block, stage 2 holds 64 bytes
for each block. A fold is the canonical decomposition without nonspacing marks, in lower case; Hangul syllables, whose
decomposition is arithmetic, are left out. Stage 1 of the folds maps code point / 128 to a block of indices into the
pool, where a length stands before the characters; index 0 is the character itself.
"""

import sys
import unicodedata

CODE_POINTS = 0x110000
CLASS_BLOCK = 256
FOLD_BLOCK = 128
WORD, SPACE, ALONE, DROPPED = range(4)
HANGUL = range(0xAC00, 0xD7A4)


def character_class(code_point: int) -> int:
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


def pack(start: int) -> bytes:
    """One block of classes: four code points a byte, the first in the low bits."""
    return bytes(
        sum(character_class(code_point + i) << (2 * i) for i in range(4))
        for code_point in range(start, start + CLASS_BLOCK, 4)
    )


def rows(values: list[int], width: int = 20) -> str:
    """The body of a C array."""
    lines = [values[i : i + width] for i in range(0, len(values), width)]
    return ",\n".join("    " + ", ".join(map(str, line)) for line in lines)


def main() -> None:
    """Print the header."""
    classes: dict[bytes, int] = {}
    class1 = [classes.setdefault(pack(start), len(classes)) for start in range(0, CODE_POINTS, CLASS_BLOCK)]
    pool = [0]
    found: dict[tuple[int, ...], int] = {}
    blocks: dict[tuple[int, ...], int] = {}
    fold1 = []
    for start in range(0, CODE_POINTS, FOLD_BLOCK):
        indices = []
        for code_point in range(start, start + FOLD_BLOCK):
            folded = fold(code_point)
            if folded == (code_point,):
                indices.append(0)
                continue
            if folded not in found:
                found[folded] = len(pool)
                pool += [len(folded), *folded]
            indices.append(found[folded])
        fold1.append(blocks.setdefault(tuple(indices), len(blocks)))
    arrays = (
        ("uint8_t oc_wpm_class_stage1", class1),
        ("uint8_t oc_wpm_class_stage2", list(b"".join(classes))),
        ("uint16_t oc_wpm_fold_stage1", fold1),
        ("uint16_t oc_wpm_fold_stage2", [index for block in blocks for index in block]),
        ("uint32_t oc_wpm_fold_pool", pool),
    )
    sys.stdout.write(
        f"""/* wordpiece_tables.h - classes and folds of Unicode {unicodedata.unidata_version}, generated for wpm.c.
 * Command: python3.13 csrc/text/make_wordpiece_tables.py > csrc/text/wordpiece_tables.h
 */
#ifndef OC_TEXT_WORDPIECE_TABLES_H
#define OC_TEXT_WORDPIECE_TABLES_H

#include <stdint.h>

"""
    )
    for name, values in arrays:
        sys.stdout.write(f"static const {name}[{len(values)}] = {{\n{rows(values)}}};\n\n")
    sys.stdout.write("#endif\n")


if __name__ == "__main__":
    main()
