"""WordPiece against the tokenizer of Hugging Face, and the rules one by one."""

import pytest
from tokenizers import BertWordPieceTokenizer

from ollamacore import Tokenizer
from tests.core.vocabularies import CONTROL, NORMAL, Metadata

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "token", "##izer", "##s", "un", "##aff", "##able", "cafe", "a", "##b", "##c", "!", ",", "'", "$")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789абвгдеёжийклмнопрстуфхцчшщъыьэюяαβγδεσωßøłđ東京都は日本首です.?-_/|~"
JAMO = "\u1112\u1161\u11ab\u1100\u1173\u11af"
TEXTS = (
    "", " ", "the tokenizers", "THE Tokenizer!", "unaffable", "Café, déjà  vu; naïve façade", "İstanbul ÅNGSTRÖM",
    "東京は日本の首都です。", "豈更", "한글 text", "Съешь ещё этих мягких французских булок", "σίγμα ΣΊΓΜΑ ς",
    "tab\tnew\nline\rreturn\u00a0nbsp\u3000wide", "zero\u200bwidth\u0000null\ufffd\u0007bell", "soft\u00adhyphen",
    "e\u0301 combining a\u0328\u0301", "[MASK] a [SEP] b", "[mask] [CLSX", "a_b|c~d^e`f$g+h=i<j>k", "½ ² ﬁ Ⅷ",
    "👍🏽 emoji 🚀", "¿qué? «oui» “quoted” – dash — … ‰ § ¶", "ثلاثة עברית ไทย हिन्दी", "a" * 100, "a" * 101, "é" * 100,
    "a\u2581b \u2581a", "\v\f\x85a", "z\u0328\u030c\u1ab0y",
)  # fmt: skip


def metadata(**keys):
    """A vocabulary as a GGUF file has it, and the same as vocab.txt has it."""
    plain = [*SPECIAL, *WORDS]
    for letter in [*LETTERS, *JAMO]:
        plain += [text for text in (letter, f"##{letter}") if text not in plain]
    tokens = [t if t in SPECIAL else t.removeprefix("##") if t.startswith("##") else f"\u2581{t}" for t in plain]
    return plain, Metadata({
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if token in SPECIAL else NORMAL for token in plain],
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
    }).but(**keys)


@pytest.fixture(scope="module", params=[True, False], ids=["lowercase", "cased"])
def pair(request):
    plain, found = metadata(**{"normalizer.lowercase": request.param})
    reference = BertWordPieceTokenizer({t: i for i, t in enumerate(plain)}, lowercase=request.param)
    return Tokenizer.from_gguf(found), reference


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_hugging_face(pair, text):
    ours, reference = pair
    assert ours.encode(text) == reference.encode(text).ids


def test_ids_of_every_character_equal_hugging_face(pair):
    ours, reference = pair
    # Characters that Unicode had in 2015: the reference's tables of marks and punctuation are that old.
    others = [*range(0x0250, 0x0370), *range(0x0400, 0x0530), *range(0x1E00, 0x2070), *range(0x3000, 0x3100)]
    for code in [*range(1, 0x0250), *others, *range(0xAC00, 0xD7A4, 97), *range(0xF900, 0xFA6E)]:
        text = f"a{chr(code)}b"
        assert ours.encode(text) == reference.encode(text).ids, hex(code)


def test_special_tokens_are_put_around_and_parsed_if_asked():
    ours = Tokenizer.from_gguf(metadata()[1])
    assert ours.encode("the [MASK]") == [2, 5, 4, 3]
    assert ours.encode("the", add_special=False) == [5]
    assert 4 not in ours.encode("[MASK]", parse_special=False)
    assert ours.n_added == 2


def test_word_with_an_unknown_part_is_unknown_as_a_whole():
    ours = Tokenizer.from_gguf(metadata()[1])
    assert ours.encode("the\u4e01 the☃ the", add_special=False) == [5, 1, 1, 5]


def test_decoding_puts_spaces_between_words():
    ours = Tokenizer.from_gguf(metadata()[1])
    assert ours.decode(ours.encode("the tokenizers")) == "the tokenizers"


def test_defaults_are_those_of_bert():
    tokens = [f"t{i}" for i in range(110)]
    ours = Tokenizer.from_gguf(Metadata({"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": tokens}))
    assert ours.encode("") == [101, 102]
    assert ours.encode("x", add_special=False) == [100]
