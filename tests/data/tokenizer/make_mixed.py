"""Write mixed.txt, on which tokenizers are compared with references: many scripts, code, emoji, odd spacing.

Command (from the repository root):  python tests/data/tokenizer/make_mixed.py
prose.txt and code.txt were written for this file; the rest is made of them and of code points by rule, with a
fixed seed.
"""

import random
import unicodedata
from pathlib import Path

HERE = Path(__file__).parent
CONTRACTIONS = [
    "s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "VE", "M", "LL", "D", "Re", "vE", "Ll", "x", "st",
    "res", "tt", "dd", "ss", "'s", "ſ",
]  # fmt: skip
EMOJI = [
    "😀", "😂🤣", "👍🏽", "👩🏿‍🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵🇧🇷", "❤️", "❤",
    "☎️", "1️⃣2️⃣#️⃣", "🫠", "🧑‍🤝‍🧑", "⛄️❄️", "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
]  # fmt: skip
SPACES = [
    " ", " ", " ", "  ", "   ", "    ", "        ", "\t", "\t\t", " \t", "\n", "\n\n", "\n\n\n", " \n", "\n ",
    "\r\n", "\r", " \r\n\t", "\u00a0", "\u2003", "\u3000", "\u2028", "\u200b", "\u0085", "\x0b", "\x0c",
    "\x1f",
]  # fmt: skip
PUNCTUATION = [
    "!", "?!", "...", "…", "--", "—", "'", "''", '"', "(", ")", "[]", "{}", "//", "=>", "!=", "<|", "|>", "▁",
    "_", "@", "#", "$", "%", "^&", "*", "~`", "\\", ";", ":", ",", ".", "•", "«»", "„“", "、", "。", "！",
]  # fmt: skip


def script_sweep() -> str:
    """Letters, marks, numbers and symbols of every 64 code points that have some, in words of seven."""
    lines = []
    planes = [*range(0x80, 0xD800, 64), *range(0xF900, 0xFE00, 64), *range(0xFE00, 0x1FB00, 64)]
    for start in planes:
        step = 1 if start < 0x3000 else 5
        block = map(chr, range(start, start + 64, step))
        assigned = [character for character in block if unicodedata.category(character)[0] in "LMNSP"]
        if not assigned or (0x3400 < start < 0xD7A4 and start % 1024) or (start > 0x12000 and start % 256):
            continue
        word, pieces = "", []
        for i, character in enumerate(assigned):
            word += character
            if i % 7 == 6:
                pieces.append(word)
                word = ""
        lines.append(" ".join([*pieces, word]))
    return "\n".join(lines)


def salad(random_source: random.Random, words: list[str], length: int) -> str:
    """Words, spaces, punctuation, numbers, contractions and emoji in any order."""
    kinds = [words, words, words, SPACES, SPACES, SPACES, PUNCTUATION, PUNCTUATION, EMOJI]
    parts: list[str] = []
    size = 0
    while size < length:
        pick = int(random_source.random() * 12)
        if pick < len(kinds):
            part = kinds[pick][int(random_source.random() * len(kinds[pick]))]
        elif pick == 9:
            part = str(int(10 ** (random_source.random() * 12)))
        elif pick == 10:
            part = "'" + CONTRACTIONS[int(random_source.random() * len(CONTRACTIONS))]
        else:
            part = " "
        parts.append(part)
        size += len(part.encode())
    return "".join(parts)


def runs() -> str:
    """Long runs of one thing."""
    items = ["a", "ab", "Ab1", "=", "-=", "0", "12", " ", "\t", "\n", "\r\n", "é", "字", "😀", "'", "ㄱ", "_"]
    items += [". ", "\u200d"]
    return "|".join(item * count for item in items for count in (3, 9, 33, 70))


def main() -> None:
    """Write the file beside this script."""
    prose = (HERE / "prose.txt").read_bytes().decode()
    code = (HERE / "code.txt").read_bytes().decode()
    words = [word for word in (prose + code).split() if len(word) < 24]
    parts = [prose, code, script_sweep(), runs(), salad(random.Random(20240229), words, 48_000), prose[::-1]]
    (HERE / "mixed.txt").write_bytes("\n".join(parts).encode())


if __name__ == "__main__":
    main()
