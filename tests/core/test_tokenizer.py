"""The tokenizer's own rules: special tokens, BOS and EOS, bytes, streams, damaged metadata."""

import threading
import unicodedata
from array import array
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamacore.errors import InvalidFileError, InvalidOptionError, UnsupportedModelError
from ollamacore.tokenizer import Tokenizer
from tests.core.vocabularies import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Metadata,
    Region,
    bpe,
    spell,
    spm,
)

CHAT = [("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL), ("<tool>", USER_DEFINED), ("<|im", USER_DEFINED)]
START, END, TOOL, SHORT = range(256, 260)


def tokenizer(metadata):
    return Tokenizer.from_gguf(metadata)


def encode(metadata, text, **options):
    return tokenizer(metadata).encode(text, add_special=False, **options)


def texts(metadata, text, **options):
    tokens = tokenizer(metadata)
    return [tokens.token_text(id) for id in tokens.encode(text, add_special=False, **options)]


# ---- merges ----


def test_merges_apply_by_rank_not_from_the_left():
    assert texts(bpe(("b", "c"), ("a", "b"), ("a", "bc")), "abcab") == ["abc", "ab"]
    assert texts(bpe(("a", "b"), ("b", "c")), "abc") == ["ab", "c"]
    assert texts(bpe(("b", "c"), ("a", "b")), "abc") == ["a", "bc"]


def test_equal_ranks_apply_from_the_left():
    assert texts(bpe(("a", "a")), "aaaaa") == ["aa", "aa", "a"]
    assert texts(spm("aa", "a", add_space_prefix=False), "aaaaa") == ["aa", "aa", "a"]


def test_merges_stay_inside_a_pretoken():
    vocabulary = bpe(("a", " "), (" ", "b"), ("a", "1"), ("1", "2"))
    assert texts(vocabulary, "a b a12") == ["a", "Ġb", "Ġ", "a", "12"]
    assert texts(vocabulary.but(pre="smollm"), "12") == ["1", "2"]
    assert texts(vocabulary.but(pre="qwen2"), "12") == ["1", "2"]
    assert texts(vocabulary.but(pre="llama-bpe"), "12") == ["12"]


def test_whole_pretoken_wins_only_where_merges_are_ignored():
    vocabulary = bpe(("a", "b"), special=[("cab", NORMAL), ("ac", CONTROL)])
    assert texts(vocabulary, "cab") == ["c", "ab"]
    llama3 = vocabulary.but(pre="llama-bpe")
    assert texts(llama3, "cab cab") == ["cab", "Ġ", "c", "ab"]
    assert texts(llama3, "ac", parse_special=False) == ["a", "c"]


def test_equal_pieces_mean_the_one_in_the_alphabet():
    vocabulary = bpe((b"\xe5", b"\xad"), (b"\xe5\xad", b"\x97"))
    tokens = ["字", *vocabulary.metadata["tokenizer.ggml.tokens"]]
    assert encode(vocabulary.but(tokens=tokens, token_type=None), "字") == [tokens.index(spell("字"))] == [258]


def test_cached_pretokens_give_the_same_ids_as_new_ones():
    tokens = tokenizer(bpe(("a", "b"), ("ab", "ab")))
    samples = ["abab", "ab", "abababab" * 8, " abab", "x" * 30, "x" * 31, "x" * 8, "x" * 9]
    fresh = [encode(bpe(("a", "b"), ("ab", "ab")), text) for text in samples]
    assert [tokens.encode(text) for text in samples] == fresh
    assert [tokens.encode(text) for text in samples] == fresh


# ---- character classes ----


def test_character_classes_are_those_of_unicode():
    vocabulary = bpe(*[(bytes([byte]), probe) for probe in (b"a", b"1", b"!") for byte in range(256)])
    tokens = tokenizer(vocabulary)
    recent = unicodedata.unidata_version > "15.1.0"  # then the table does not know the newest characters
    known = unicodedata.ucd_3_2_0 if recent else unicodedata
    for code in range(0x80, 0x20000):
        character = chr(code)
        if known.category(character) in ("Cn", "Cs", "Co") or character.isspace():
            continue
        expected = {"L": "a", "N": "1"}.get(unicodedata.category(character)[0], "!")
        width = len(character.encode())
        joined = [probe for probe in "a1!" if len(tokens.encode(character + probe)) == width]
        assert joined == [expected], hex(code)


@pytest.mark.parametrize("space", "\t\x0b\x0c\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000")
def test_white_space_before_a_word_stays_alone(space):
    last = space.encode()[-1:]
    assert len(encode(bpe((last, "!")), space + "!")) == len(space.encode()) + 1


@pytest.mark.parametrize("other", "\x1c\x1f\u200b\u180e\ufeff\u2800")
def test_what_is_not_white_space_joins_punctuation(other):
    last = other.encode()[-1:]
    assert len(encode(bpe((last, "!")), other + "!")) == len(other.encode())


# ---- special tokens ----


def test_control_tokens_in_text_need_parse_special():
    vocabulary = bpe(special=CHAT)
    assert encode(vocabulary, "a<|im_end|>b") == [97, END, 98]
    assert encode(vocabulary, "a<|im_end|>b", parse_special=False) == [97, SHORT, *b"_end|>b"]


def test_user_defined_tokens_are_found_always():
    assert encode(bpe(special=CHAT), "x<tool>y", parse_special=False) == [120, TOOL, 121]


def test_longest_special_token_wins():
    assert encode(bpe(special=CHAT), "<|im_start|><|im_st<|im_end|") == [START, SHORT, *b"_st", SHORT, *b"_end|"]


def test_special_token_at_every_edge():
    vocabulary = bpe(special=CHAT)
    assert encode(vocabulary, "<tool>") == [TOOL]
    assert encode(vocabulary, "<tool><tool>") == [TOOL, TOOL]
    assert encode(vocabulary, "<tool") == list(b"<tool")
    assert encode(vocabulary, "<<tool>") == [60, TOOL]


def test_pretokens_end_at_special_tokens():
    assert texts(bpe(("a", "b"), (" ", " "), special=CHAT), "a<tool>b  <tool>") == ["a", "<tool>", "b", "ĠĠ", "<tool>"]


@given(st.text(alphabet="<|imstar_end>to l", max_size=60), st.booleans())
def test_special_tokens_are_the_leftmost_longest(text, parse_special):
    usable = [(name, 256 + i) for i, (name, kind) in enumerate(CHAT) if parse_special or kind == USER_DEFINED]
    expected, at = [], 0
    while at < len(text):
        found = [(len(name), id) for name, id in usable if text.startswith(name, at)]
        width, id = max(found, default=(1, ord(text[at])))
        expected.append(id)
        at += width
    assert encode(bpe(special=CHAT), text, parse_special=parse_special) == expected


def test_byte_marked_as_control_is_still_text():
    vocabulary = bpe(("a", "!"), special=CHAT)
    types = vocabulary.metadata["tokenizer.ggml.token_type"]
    marked = vocabulary.but(token_type=[*types[:33], CONTROL, *types[34:]])
    assert encode(marked, "b!", parse_special=False) == [98, 33]


# ---- BOS, EOS, ends ----


def test_bos_and_eos_follow_the_metadata():
    vocabulary = bpe(special=CHAT, bos_token_id=START, eos_token_id=END)
    assert tokenizer(vocabulary).encode("a") == [97]
    both = tokenizer(vocabulary.but(add_bos_token=True, add_eos_token=True))
    assert both.encode("a") == [START, 97, END]
    assert both.encode("") == [START, END]
    assert both.encode("a", add_special=False) == [97]
    assert (both.bos, both.eos, both.add_bos, both.add_eos) == (START, END, True, True)


def test_bos_defaults_follow_the_model():
    assert tokenizer(spm("a")).encode("")[0] == 1
    assert tokenizer(spm("a", add_bos_token=False)).encode("") == []
    assert tokenizer(bpe(special=CHAT, pre="llama-bpe", bos_token_id=START)).encode("") == [START]
    without = tokenizer(bpe(add_bos_token=True))
    assert without.bos is None
    assert without.encode("") == []


def test_end_ids_hold_metadata_and_known_special_tokens():
    special = [("<|im_end|>", CONTROL), ("<|endoftext|>", USER_DEFINED), ("<|eot_id|>", NORMAL), ("x", CONTROL),
               ("</s>", USER_DEFINED), ("<y>", CONTROL)]  # fmt: skip
    assert tokenizer(bpe(special=special)).end_ids == {256, 257}
    assert tokenizer(bpe(special=special, eos_token_id=261, eot_token_id=65)).end_ids == {65, 256, 257, 261}
    assert tokenizer(spm("a")).end_ids == {2}
    answers = [("<|tool_response>", CONTROL), ("<start_function_response>", USER_DEFINED)]  # what a tool says
    assert tokenizer(bpe(special=answers)).end_ids == {256, 257}


def test_end_of_message_does_not_end_where_return_and_call_do():
    harmony = [("<|end|>", CONTROL), ("<|return|>", CONTROL), ("<|call|>", CONTROL)]
    assert tokenizer(bpe(special=harmony)).end_ids == {257, 258}
    assert tokenizer(bpe(special=harmony[:1])).end_ids == {256}


def test_user_defined_end_is_a_control_token():
    special = [(text, USER_DEFINED) for text in ("<|im_end|>", "<fim_middle>", "<b>", "</s>")]
    tokens = tokenizer(bpe(special=special))
    text = "<|im_end|><fim_middle><b></s>"
    assert tokens.encode(text) == [256, 257, 258, 259]
    assert tokens.encode(text, parse_special=False) == [*text[:22].encode(), 258, 259]


# ---- white space that special tokens take with them ----

SPACED = "a \n<mask>\t <x> b <s> c <unk> d<mask><mask> e"


def spaced(**keys):
    metadata = spm(*"abcde▁", special=[("<mask>", CONTROL), ("<x>", USER_DEFINED)], add_space_prefix=False)
    tokens = tokenizer(Metadata(metadata.metadata | {key.replace("_", ".", 1): text for key, text in keys.items()}))
    ids = tokens.encode(SPACED, add_special=False)
    return tokens.decode(ids, special=True)


def test_mask_takes_the_white_space_before_it():
    expected = "a<mask>\t <x> b <s> c <unk> d<mask><mask> e"
    assert spaced(general_architecture="nomic-bert-moe") == expected
    assert spaced(general_architecture="bert") == SPACED
    bare = bpe(special=[("<mask>", CONTROL)], pre="jina-v2-code")
    assert encode(bare, "a \n<mask> b") == [97, 256, 32, 98]
    assert encode(bare, "a <mask>", parse_special=False) == list(b"a <mask>")


def test_phi_3_tokens_take_the_white_space_behind_them():
    expected = "a \n<mask><x>b <s> c <unk> d<mask><mask>e"
    assert spaced(general_name="Phi-3 mini") == expected
    assert spaced(general_name="My phi3") == expected


def test_separator_between_texts_follows_the_metadata():
    special = [("</s>", CONTROL), ("<sep>", CONTROL)]
    ends = {"eos_token_id": 256, "seperator_token_id": 257}
    assert tokenizer(bpe(special=special, **ends)).separator is None
    assert tokenizer(bpe(special=special, add_sep_token=True, **ends)).separator == 257
    assert tokenizer(bpe(special=special, add_sep_token=True, eos_token_id=256)).separator == 256
    assert tokenizer(bpe(special=special, pre="roberta-bpe", **ends)).separator == 257
    assert tokenizer(bpe(special=special, pre="roberta-bpe", add_sep_token=False, **ends)).separator is None


# ---- SentencePiece ----


def test_space_prefix_goes_before_text_and_after_special_tokens():
    vocabulary = spm("▁a", "▁", "a", special=[("<x>", CONTROL)])
    assert texts(vocabulary, "a<x>a") == ["▁a", "<x>", "▁a"]
    assert texts(vocabulary.but(add_space_prefix=False), "a<x>a") == ["a", "<x>", "a"]
    assert texts(vocabulary, " a") == ["▁", "▁a"]


def test_characters_without_a_piece_become_bytes():
    assert texts(spm("a", add_space_prefix=False), "aé") == ["a", "<0xC3>", "<0xA9>"]


def test_without_byte_tokens_unknown_stands_for_a_character():
    vocabulary = spm("a", byte_tokens=False, add_space_prefix=False)
    assert encode(vocabulary, "aé字a") == [3, 0, 0, 3]


def test_control_token_is_never_merged_from_text():
    vocabulary = spm("<", "s", ">", "<s", add_space_prefix=False)
    assert texts(vocabulary, "<s>", parse_special=False) == ["<s", ">"]
    assert encode(vocabulary, "<s>") == [1]


def test_piece_across_words_is_still_merged():
    pieces = (">▁</", ">▁", "</", "▁<", "<", ">", "/", "▁a", "▁▁", "▁", "a")
    vocabulary = spm(*pieces, add_space_prefix=False)
    assert texts(vocabulary, "> </a a") == [">▁</", "a", "▁a"]
    assert texts(vocabulary, ">  a") == [">▁", "▁a"]
    assert texts(vocabulary, "a  a") == ["a", "▁", "▁a"]


def merged_at_once(pieces, text):
    """The pieces of a whole text, spaces escaped, merged best first as SentencePiece defines it."""
    rank = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    parts = list(text)
    while pairs := [(rank[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in rank]:
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


crossing = st.text(st.sampled_from("ab,.\u2581é字"), min_size=2, max_size=5)


@given(st.lists(crossing, max_size=12), st.lists(crossing, max_size=30).map("".join), st.booleans())
def test_spm_equals_merging_a_text_at_once(pieces, text, prefix):
    expected = merged_at_once(pieces, "\u2581" * prefix + text if text else "")
    vocabulary = spm(*dict.fromkeys([*pieces, *"ab,.\u2581é字"]), add_space_prefix=prefix)
    assert texts(vocabulary, text.replace("\u2581", " ")) == expected
    assert texts(vocabulary, text) == expected


def test_user_defined_token_with_spaces_matches_either_spelling_in_the_file():
    for spelling in ("  ", "▁▁"):
        vocabulary = spm("▁", "a", "▁a", special=[(spelling, USER_DEFINED)], add_space_prefix=False)
        tokens = tokenizer(vocabulary)
        ids = tokens.encode("a  a", add_special=False)
        assert [tokens.token_text(id) for id in ids] == ["a", spelling, "a"]
        assert tokens.decode(ids) == "a  a"


def test_byte_tokens_without_types_are_known_by_spelling():
    vocabulary = spm("a", add_space_prefix=False).but(token_type=None)
    assert texts(vocabulary, "a\n") == ["a", "<0x0A>"]
    assert tokenizer(vocabulary).token_bytes(13) == b"\n"


def test_not_a_number_scores_do_no_harm():
    vocabulary = spm("ab", "a", "b", "aba", add_space_prefix=False)
    scores = vocabulary.metadata["tokenizer.ggml.scores"].copy()
    scores[259:] = [np.nan, np.inf, -np.inf, np.nan]
    tokens = tokenizer(vocabulary.but(scores=scores))
    assert tokens.decode(tokens.encode("ababa" * 9)) == "ababa" * 9


# ---- decoding ----


def test_control_tokens_decode_only_on_request():
    tokens = tokenizer(bpe(special=CHAT))
    ids = [97, END, TOOL]
    assert tokens.decode(ids) == "a<tool>"
    assert tokens.decode(ids, special=True) == "a<|im_end|><tool>"
    assert tokens.token_bytes(END) == b""
    assert tokens.token_bytes(END, special=True) == b"<|im_end|>"
    assert tokens.token_text(END) == "<|im_end|>"


def test_decode_takes_the_prefix_away_once():
    tokens = tokenizer(spm("▁a", "▁", "a"))
    assert tokens.decode(tokens.encode("a a")) == "a a"
    assert tokens.decode(tokens.encode(" a")) == " a"
    assert tokens.token_bytes(tokens.encode("a")[1]) == b" a"


@given(st.text())
def test_byte_level_round_trip(text):
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2"):
        tokens = ROUND_TRIP[pre]
        assert tokens.decode(tokens.encode(text, parse_special=False), special=True) == text


@given(st.text())
def test_sentencepiece_round_trip(text):
    for tokens in (ROUND_TRIP["spm"], ROUND_TRIP["spm, no prefix"]):
        assert tokens.decode(tokens.encode(text, parse_special=False)) == text.replace("▁", " ")


ROUND_TRIP = {
    pre: tokenizer(bpe(("a", "b"), (" ", "a"), ("0", "0"), (b"\xc3", b"\xa9"), special=CHAT, pre=pre))
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2")
}
ROUND_TRIP["spm"] = tokenizer(spm("▁a", "▁", "a", "▁▁", "é"))
ROUND_TRIP["spm, no prefix"] = tokenizer(spm("▁a", "▁", "a", "▁▁", "é", add_space_prefix=False))


def test_surrogates_are_joined_or_replaced():
    tokens = tokenizer(bpe())
    assert tokens.decode(tokens.encode("a\ud83d\ude80b\ud800c")) == "a\U0001f680b\ufffdc"


def test_invalid_utf8_decodes_to_replacement_characters():
    assert tokenizer(bpe()).decode([0x61, 0xC3, 0x28, 0xF0, 0x9F]) == "a\ufffd(\ufffd"


@pytest.mark.parametrize("id", [-1, 256, 2**31, 2**70])
def test_ids_out_of_range_are_refused(id):
    with pytest.raises(InvalidOptionError, match="256 tokens"):
        tokenizer(bpe()).decode([id])
    with pytest.raises(InvalidOptionError):
        tokenizer(bpe()).stream().push(id)


# ---- streams ----


def test_stream_holds_incomplete_characters_back():
    stream = tokenizer(bpe()).stream()
    assert [stream.push(byte) for byte in "é🚀".encode()] == ["", "é", "", "", "", "🚀"]
    assert stream.push(0xF0) == ""
    assert stream.push(0x9F) == ""
    assert stream.flush() == ""
    assert stream.push(0x61) == "a"


def test_stream_replaces_what_can_never_be_complete():
    stream = tokenizer(bpe()).stream()
    assert [stream.push(byte) for byte in (0xE2, 0x28, 0x80)] == ["", "\ufffd(", "\ufffd"]


def test_stream_keeps_the_space_of_a_continuation():
    tokens = tokenizer(spm("▁a", "▁", "a"))
    stream = tokens.stream()
    assert [stream.push(id) for id in tokens.encode("a a")] == ["", " a", " a"]


def test_stream_shows_control_tokens_only_on_request():
    tokens = tokenizer(bpe(special=CHAT))
    assert tokens.stream().push(END) == ""
    assert tokens.stream(special=True).push(END) == "<|im_end|>"


@given(st.lists(st.integers(0, 255), max_size=40))
def test_stream_equals_decoding_at_once(ids):
    tokens = ROUND_TRIP["gpt-2"]
    stream = tokens.stream()
    text = "".join([stream.push(id) for id in ids])
    whole = tokens.decode(ids)
    assert "".join([*text, *whole[len(text) :]]) == whole
    assert whole[len(text) :] in ("", "\ufffd")  # at most one incomplete character is missing


# ---- size and threads ----


def test_prompt_of_8_mb():
    tokens = tokenizer(bpe(("w", "o"), ("wo", "rd"), ("r", "d"), (" ", "word")))
    text = "word " * (8 * 2**20 // 5)
    ids = tokens.encode(text)
    assert ids[:3] == tokens.encode("word word word")[:3]
    assert tokens.decode(ids) == text


@pytest.mark.parametrize("unit", ["a", "é", " ", "1", "!", "\n", "▁"])
@pytest.mark.parametrize("kind", ["gpt-2", "qwen2", "spm"])
def test_long_run_of_one_character(kind, unit):
    tokens = ROUND_TRIP[kind]
    text = unit * 200_000
    assert tokens.decode(tokens.encode(text)) == (text.replace("▁", " ") if kind == "spm" else text)


def test_threads_share_a_tokenizer():
    tokens = tokenizer(bpe(("a", "b"), ("c", "d"), ("ab", "cd"), (" ", "ab")))
    samples = [("abcd " * 3000 + str(i)) * (i % 3 + 1) for i in range(8)]
    expected = [tokens.encode(sample) for sample in samples]
    results = {}

    def work(i):
        results[i] = [tokens.encode(samples[i]) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: [ids] * 5 for i, ids in enumerate(expected)}


# ---- files that are damaged or not supported ----


@pytest.mark.parametrize("keys", [{"model": "rwkv"}, {"pre": "superbpe"}])
def test_unsupported_tokenizers_are_named(keys):
    (name,) = keys.values()
    with pytest.raises(UnsupportedModelError, match=name):
        tokenizer(bpe().but(**keys))


def test_missing_pre_means_gpt2():
    assert texts(bpe(("1", "2"), pre=None), "12") == ["12"]
    assert texts(bpe(("1", "2"), pre="default"), "12") == ["12"]


def test_any_bytes_may_be_a_token():
    vocabulary = bpe(special=[("<x>", CONTROL)])
    tokens = vocabulary.metadata["tokenizer.ggml.tokens"]
    broken = tokenizer(vocabulary.but(tokens=[text.encode() for text in tokens[:-1]] + [b"\xff\xc3("]))
    assert broken.token_bytes(256, special=True) == b"\xff\xc3("
    assert broken.token_text(256) == "\ufffd\ufffd("
    assert broken.encode("a") == [97]


BAD = {
    "no tokens": (bpe(tokens=[]), "0 tokens"),
    "tokens missing": (bpe(tokens=None), "tokens is missing"),
    "tokens of another type": (bpe(tokens=[1, 2]), "not an array of strings"),
    "tokens as numbers": (bpe(tokens=np.zeros(3)), "not an array of strings"),
    "tokens as text": (bpe(tokens="abc"), "not an array of strings"),
    "token outside": (bpe(tokens=Region(bytes(8), [0, 1]), token_type=None), "token 1 lies outside"),
    "token offset wraps": (bpe(tokens=Region(bytes(8), [2**64 - 4]), token_type=None), "token 0 lies outside"),
    "token too long": (bpe(tokens=Region(b"\xff" * 8, [0]), token_type=None), "token 0 lies outside"),
    "token over 64 KiB": (bpe(tokens=["a" * 65536], token_type=None), "token 0 is longer"),
    "special over 1 KiB": (bpe(special=[("a" * 1025, CONTROL)]), "special token 256 is longer"),
    "types of another length": (bpe(token_type=[1, 1]), "2 elements for 256"),
    "types of another width": (bpe(token_type=np.ones(256, np.int8)), "wrong type"),
    "types as floats": (bpe(token_type=np.ones(256, np.float32)), "wrong type"),
    "types as text": (bpe(token_type="x"), "not a numeric array"),
    "type unknown": (bpe(token_type=[1] * 255 + [7]), "token 255 has an unknown type"),
    "type negative": (bpe(token_type=[-1] * 256), "token 0 has an unknown type"),
    "merges missing": (bpe(merges=None), "merges is missing"),
    "merge of unknown pieces": (bpe(merges=["a b"]), "merge 0 names a piece .* 'a b'"),
    "merge of unknown left": (bpe(("a", "b"), merges=["a b", "abc d"]), "merge 1 names a piece"),
    "merge without a space": (bpe(merges=["ab"]), "merge 0 is not a pair: 'ab'"),
    "merge without a right": (bpe(merges=["a "]), "merge 0 is not a pair"),
    "merge empty": (bpe(merges=[""]), "merge 0 is not a pair"),
    "merge too long": (bpe(merges=["a " + "b" * 4000]), "merge 0 is longer"),
    "merge outside": (bpe(merges=Region(b"", [0])), "merge 0 lies outside"),
    "scores missing": (spm("a", scores=None), "scores is missing"),
    "scores of another length": (spm("a", scores=array("f", [0.0])), "1 elements for 260"),
    "scores as bytes": (spm("a", scores=np.zeros(260, np.uint8)), "wrong type"),
    "scores as strings": (spm("a", scores=["x"] * 260), "not a numeric array"),
    "byte token misspelled": (spm("a", special=[("<0x-1>", BYTE)]), "token 260 is a byte token.*<0x-1>"),
    "byte token too short": (spm("a", special=[("<0x1>", BYTE)]), "token 260 is a byte token"),
    "eos out of range": (bpe(eos_token_id=256), "eos_token_id is 256"),
    "bos negative": (bpe(bos_token_id=-1), "bos_token_id is -1"),
    "eot of another type": (bpe(eot_token_id="1"), "eot_token_id"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged_metadata_is_refused(case):
    metadata, message = BAD[case]
    with pytest.raises(InvalidFileError, match=message):
        tokenizer(metadata)


def test_offsets_may_stand_anywhere():
    region = b"junk" + b"".join(len(text).to_bytes(8, "little") + text for text in (b"b", b"ab", b"a"))
    vocabulary = bpe(tokens=Region(region, [23, 4, 13]), token_type=None, merges=["a b"])
    assert texts(vocabulary, "abb") == ["ab", "b"]


def test_first_of_equal_tokens_and_merges_counts():
    vocabulary = bpe(("a", "b"), ("b", "c"), special=[("a", NORMAL), ("<x>", CONTROL), ("<x>", CONTROL)])
    merges = [*vocabulary.metadata["tokenizer.ggml.merges"], "a b"]
    assert encode(vocabulary.but(merges=merges), "abc<x>a") == [256, 99, 259, 97]


def test_bytes_without_a_token_are_dropped():
    vocabulary = bpe().but(tokens=["a", "b"], token_type=[1, 1], unknown_token_id=1)
    assert encode(vocabulary, "xaxbx") == [0, 1]


def test_unknown_token_is_special():
    vocabulary = spm("a", add_space_prefix=False)
    assert encode(vocabulary, "<unk>") == [0]
    assert 0 not in encode(vocabulary, "<unk>", parse_special=False)
    assert tokenizer(vocabulary).token_bytes(0) == b""
    assert vocabulary.metadata["tokenizer.ggml.token_type"][0] == UNKNOWN
