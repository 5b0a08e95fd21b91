"""The GGUF reader: what it reads from sound files; a damaged file gets no further than a typed error."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf as reference
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ollamacore import gguf
from ollamacore.errors import ClosedError, InvalidFileError, UnsupportedModelError
from ollamacore.gguf import FILE_TYPES, TENSOR_TYPES, GGUFFile, StringArray
from tests.generate.gguf_bytes import (
    ARRAY,
    BOOL,
    F32,
    F64,
    FORMATS,
    I8,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    GGUFBytes,
    array_entry,
    entry,
    scalar,
    string,
    tensor,
    text_entry,
    u32,
    u64,
)

ARCH = text_entry("general.architecture", "llama")


def small() -> GGUFBytes:
    """A sound file with every kind of value and two tensors of 64 bytes."""
    scalars = [entry(f"scalar.{kind}", kind, scalar(kind, 1)) for kind in FORMATS if kind not in (F32, F64)]
    return GGUFBytes(
        entries=[
            ARCH,
            *scalars,
            entry("eps", F32, scalar(F32, 0.5)),
            entry("base", F64, scalar(F64, 1e6)),
            entry("general.file_type", U32, u32(15)),
            array_entry("tokens", STRING, [string("a"), string(""), string("né"), string(b"\xff")]),
            array_entry("scores", F32, [scalar(F32, x) for x in (0.0, -1.5, 3.0)]),
            array_entry("flags", BOOL, [b"\0", b"\1"]),
            array_entry("empty", STRING, []),
        ],
        tensors=[tensor("a.weight", [4, 4], 0, 0), tensor("b.weight", [32], 1, 64)],
        data=np.arange(16, dtype="<f4").tobytes() + np.ones(32, dtype="<f2").tobytes(),
    )


@pytest.fixture
def write(tmp_path):
    def write_file(content: GGUFBytes | bytes, name: str = "model.gguf") -> Path:
        path = tmp_path / name
        path.write_bytes(bytes(content))
        return path

    return write_file


def test_open_reads_every_kind_of_value(write):
    with GGUFFile.open(write(small())) as file:
        assert file.version == 3
        assert file.alignment == 32
        assert file.architecture == "llama"
        assert file.file_type_name == "Q4_K_M"
        assert file.get("eps", float) == 0.5
        assert file.get("base", float) == 1e6
        assert file.get(f"scalar.{BOOL}", bool) is True
        assert [file.get(f"scalar.{kind}", int) for kind in (U8, I8, U16, U32, U64, I64)] == [1] * 6
        assert file.get("scores", np.ndarray).tolist() == [0.0, -1.5, 3.0]
        assert file.array("flags", bool).tolist() == [False, True]
        assert list(file.get("empty", StringArray)) == []


def test_open_accepts_version_2(write):
    content = small()
    content.version = u32(2)
    assert GGUFFile.open(write(content)).version == 2


def test_tensors_are_found_at_their_absolute_offsets(write):
    path = write(small())
    with GGUFFile.open(path) as file:
        info = file.tensors["b.weight"]
        assert info.shape == (32,)
        assert (info.type, info.type_name, info.n_bytes, info.n_values) == (1, "F16", 64, 32)
        assert path.read_bytes()[info.offset :] == bytes(file.data("b.weight"))
        assert np.frombuffer(file.data("a.weight"), "<f4").tolist() == list(range(16))
        assert file.parameter_count == 48
        with pytest.raises(KeyError):
            file.data("c.weight")


def test_alignment_moves_the_data(write):
    content = GGUFBytes(
        entries=[ARCH, entry("general.alignment", U32, u32(4096))],
        tensors=[tensor("a", [2])],
        data=np.array([7, 8], "<f4").tobytes(),
        alignment=4096,
    )
    with GGUFFile.open(write(content)) as file:
        assert file.tensors["a"].offset == 4096
        assert np.frombuffer(file.data("a"), "<f4").tolist() == [7, 8]


def test_string_array_is_a_sequence_of_text_and_raw_bytes(write):
    with GGUFFile.open(write(small())) as file:
        tokens = file.get("tokens", StringArray)
        assert list(tokens) == ["a", "", "né", "\ufffd"]
        assert [tokens[i] for i in range(4)] == list(tokens)
        assert (tokens[-2], tokens[1:3]) == ("né", ["", "né"])
        assert (tokens.raw(3), tokens.raw(-4)) == (b"\xff", b"a")
        for index in (4, -5):
            with pytest.raises(IndexError):
                tokens.raw(index)
        assert tokens.offsets.tolist() == [0, 9, 17, 28, 37]
        assert bytes(tokens.buffer[17 + 8 : 28]) == "né".encode()


def test_values_cannot_be_written(write):
    with GGUFFile.open(write(small())) as file:
        for array in (file.get("scores", np.ndarray), file.get("tokens", StringArray).offsets):
            assert not array.flags.writeable
        assert file.data("a.weight").readonly


def test_header_is_read_again_after_it_was_dropped(write):
    with GGUFFile.open(write(small())) as file:
        scores, tokens = file.get("scores", np.ndarray), file.get("tokens", StringArray)
        file.drop_header()
        assert scores.tolist() == [0.0, -1.5, 3.0]
        assert tokens[2] == "né"
    file.drop_header()


def test_views_outlive_close_but_data_is_refused(write):
    file = GGUFFile.open(write(small()))
    scores, tokens = file.get("scores", np.ndarray), file.get("tokens", StringArray)
    file.close()
    file.close()
    assert scores.tolist() == [0.0, -1.5, 3.0]
    assert tokens[2] == "né"
    with pytest.raises(ClosedError):
        file.data("a.weight")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("eps", int), ("tokens", np.ndarray), ("scores", StringArray), (f"scalar.{BOOL}", int),
        (f"scalar.{U32}", bool), (f"scalar.{U32}", float), ("general.architecture", int), ("scores", float),
        ("missing", int),
    ],
)  # fmt: skip
def test_get_refuses_another_type_and_names_the_key(write, key, kind):
    with GGUFFile.open(write(small())) as file, pytest.raises(InvalidFileError, match=key):
        file.get(key, kind)


def test_get_with_default_still_checks_the_type(write):
    with GGUFFile.open(write(small())) as file:
        assert file.get("missing", int, 5) == 5
        assert file.get("missing", int, None) is None
        assert file.get(f"scalar.{U32}", (int, np.ndarray), 5) == 1
        with pytest.raises(InvalidFileError, match="eps"):
            file.get("eps", int, 5)


def test_array_checks_item_type_and_length(write):
    with GGUFFile.open(write(small())) as file:
        assert len(file.array("scores", np.float32, 3)) == 3
        assert file.array("missing", np.float32, default=None) is None
        for key, dtype, length in (("scores", np.uint8, 3), ("scores", np.float32, 4), ("missing", "f4", 0)):
            with pytest.raises(InvalidFileError, match=key):
                file.array(key, dtype, length)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_get_refuses_numbers_that_are_not_finite(write, value):
    content = GGUFBytes(entries=[ARCH, entry("eps", F32, scalar(F32, value))])
    with GGUFFile.open(write(content)) as file, pytest.raises(InvalidFileError, match="eps"):
        file.get("eps", float)


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ([], "unknown"),
        ([entry("general.file_type", U32, u32(0))], "F32"),
        ([entry("general.file_type", U32, u32(9999))], "unknown"),
        ([entry("general.file_type", BOOL, b"\1")], "unknown"),
        ([text_entry("general.file_type", "x")], "unknown"),
    ],
)
def test_file_type_name_of_odd_files(write, entries, name):
    assert GGUFFile.open(write(GGUFBytes(entries=[ARCH, *entries]))).file_type_name == name


def test_architecture_is_required_where_asked_for(write):
    file = GGUFFile.open(write(GGUFBytes(entries=[])))
    with pytest.raises(InvalidFileError, match=r"general\.architecture"):
        _ = file.architecture


def with_tensor(*tensors: bytes, data: bytes = bytes(256)) -> GGUFBytes:
    return GGUFBytes(tensors=list(tensors), data=data)


def with_entries(*entries: bytes, count: int | None = None) -> GGUFBytes:
    return GGUFBytes(entries=[ARCH, *entries], n_entries=count)


def with_alignment(value: int, kind: int = U32) -> GGUFBytes:
    return with_entries(entry("general.alignment", kind, scalar(kind, value)))


BIG = 1 << 63
WRAP = (1 << 64) - 1

#: name -> (file, part of the message); big files are made when their turn comes
HOSTILE: dict[str, tuple[GGUFBytes | bytes | Callable[[], GGUFBytes], str]] = {
    "empty": (b"", "not a GGUF"),
    "magic-only-4-bytes": (b"GGUF", "not a GGUF"),
    "magic-and-half-a-version": (b"GGUF\3\0", "not a GGUF"),
    "zip": (b"PK\3\4" + bytes(64), "not a GGUF"),
    "text": (b"<html>hello, not a model</html>", "not a GGUF"),
    "ggml": (b"lmgg" + bytes(64), "not a GGUF"),
    "ggjt": (b"tjgg" + bytes(64), "not a GGUF"),
    "magic-reversed": (GGUFBytes(magic=b"FUGG"), "not a GGUF"),
    "magic-lower-case": (GGUFBytes(magic=b"gguf"), "not a GGUF"),
    "zeros": (bytes(4096), "not a GGUF"),
    "version-0": (GGUFBytes(version=u32(0)), "version 0"),
    "version-1": (GGUFBytes(version=u32(1)), "version 1"),
    "version-4": (GGUFBytes(version=u32(4)), "version 4"),
    "version-max": (GGUFBytes(version=u32(0xFFFFFFFF)), "version 4294967295"),
    "big-endian-3": (GGUFBytes(version=b"\0\0\0\3"), "big-endian"),
    "big-endian-2": (GGUFBytes(version=b"\0\0\0\2"), "big-endian"),
    "header-only-version": (b"GGUF\3\0\0\0", "ends inside the number of tensors"),
    "header-without-metadata-count": (b"GGUF\3\0\0\0" + u64(0), "ends inside the number of metadata"),
    "n-tensors-2pow63": (GGUFBytes(n_tensors=BIG), "cannot hold"),
    "n-tensors-max": (GGUFBytes(n_tensors=WRAP), "cannot hold"),
    "n-tensors-one-too-many": (GGUFBytes(n_tensors=1), "cannot hold|ends inside|no name"),
    "n-tensors-above-limit": (
        lambda: GGUFBytes(n_tensors=gguf.MAX_TENSORS + 1, data=bytes(5 << 20)),
        "cannot hold",
    ),
    "n-metadata-2pow63": (GGUFBytes(n_entries=BIG), "cannot hold"),
    "n-metadata-max": (GGUFBytes(n_entries=WRAP), "cannot hold"),
    "n-metadata-one-too-many": (GGUFBytes(n_entries=2, data=bytes(32)), "key 1 is empty"),
    "n-metadata-above-limit": (
        GGUFBytes(n_entries=gguf.MAX_METADATA + 1, data=bytes(1 << 20)),
        "cannot hold",
    ),
    "n-metadata-too-small": (
        GGUFBytes(entries=[ARCH, text_entry("a", "b")], n_entries=1, n_tensors=1, data=bytes(64)),
        "tensor",
    ),
    "key-length-2pow63": (with_entries(u64(BIG)), "more than 65535"),
    "key-length-max": (with_entries(u64(WRAP) + bytes(16)), "more than 65535"),
    "key-length-65536": (with_entries(text_entry("k" * 65536, "v")), "more than 65535"),
    "key-past-the-end": (with_entries(u64(1000) + bytes(16)), "ends inside metadata key 1"),
    "key-empty": (with_entries(text_entry("", "v")), "empty"),
    "key-not-utf8": (with_entries(text_entry(b"\xff\xfe", "v")), "not UTF-8"),
    "key-surrogate": (with_entries(text_entry(b"\xed\xa0\x80", "v")), "not UTF-8"),
    "key-twice": (with_entries(text_entry("a", "v"), text_entry("a", "w")), "'a' occurs twice"),
    "architecture-twice": (with_entries(ARCH), "occurs twice"),
    "value-type-13": (with_entries(entry("a", 13, bytes(16))), "unknown value type 13"),
    "value-type-max": (with_entries(entry("a", 0xFFFFFFFF, bytes(16))), "unknown value type"),
    "value-cut-after-type": (
        GGUFBytes([ARCH, entry("a", U64, b"")], alignment=1),
        "ends inside metadata value 'a'",
    ),
    "value-cut-inside": (GGUFBytes(entries=[ARCH, entry("a", U64, bytes(7))], alignment=1), "ends inside"),
    "type-cut": (GGUFBytes(entries=[ARCH, string("abcdefgh") + b"\4"], alignment=1), "ends inside"),
    "bool-2": (with_entries(entry("a", BOOL, b"\2")), "bool of value 2"),
    "bool-255": (with_entries(entry("a", BOOL, b"\xff")), "bool of value 255"),
    "string-length-2pow63": (with_entries(entry("a", STRING, u64(BIG))), "more than 16777216"),
    "string-length-max": (with_entries(entry("a", STRING, u64(WRAP))), "more than 16777216"),
    "string-length-16MiB-plus-1": (
        lambda: with_entries(text_entry("a", bytes((16 << 20) + 1))),
        "more than 16777216",
    ),
    "string-length-16MiB-not-there": (with_entries(entry("a", STRING, u64(16 << 20))), "ends inside"),
    "string-past-the-end-by-one": (
        GGUFBytes(entries=[ARCH, entry("a", STRING, string("abcdefghijklm", 14))], alignment=1),
        "ends inside",
    ),
    "string-not-utf8": (with_entries(text_entry("a", b"\x80")), "not UTF-8"),
    "texts-above-budget": (
        lambda: with_entries(*(text_entry(f"k{i}", b"x" * (9 << 20)) for i in range(2))),
        "texts of the header",
    ),
    "array-of-arrays": (with_entries(array_entry("a", ARRAY, [u32(U8) + u64(1) + b"x"])), "array of arrays"),
    "array-of-arrays-10000-deep": (
        with_entries(entry("a", ARRAY, (u32(ARRAY) + u64(1)) * 10_000)),
        "array of arrays",
    ),
    "array-item-type-13": (with_entries(array_entry("a", 13, [bytes(8)])), "unknown type 13"),
    "array-item-type-max": (with_entries(array_entry("a", 0xFFFFFFFF, [bytes(8)])), "unknown type"),
    "array-count-2pow63": (with_entries(array_entry("a", U8, [b"x"], BIG)), "items"),
    "array-count-max": (with_entries(array_entry("a", U8, [b"x"], WRAP)), "items"),
    "array-count-wraps-u64": (with_entries(array_entry("a", U64, [bytes(8)], 1 << 61)), "items"),
    "array-count-wraps-u32": (with_entries(array_entry("a", U32, [bytes(4)], 1 << 30)), "items"),
    "array-count-limit-plus-1": (with_entries(array_entry("a", U8, [], (64 << 20) + 1)), "items"),
    "array-past-the-end": (with_entries(array_entry("a", U32, [bytes(4)], 100)), "ends inside"),
    "array-at-limit-not-there": (with_entries(array_entry("a", U8, [], 64 << 20)), "ends inside"),
    "array-header-cut": (
        GGUFBytes(entries=[ARCH, entry("abcdef", ARRAY, b"\4\0")], alignment=1),
        "ends inside",
    ),
    "array-bool-2": (with_entries(array_entry("a", BOOL, [b"\0", b"\2"])), "bools other"),
    "strings-count-2pow63": (with_entries(array_entry("a", STRING, [string("x")], BIG)), "items"),
    "strings-count-not-there": (
        with_entries(array_entry("a", STRING, [string("x")], 50_000_000)),
        "ends inside",
    ),
    "strings-count-one-too-many": (
        GGUFBytes([ARCH, array_entry("a", STRING, [string("x" * 40)], 2)], alignment=1),
        "'a'",
    ),
    "strings-above-budget": (
        lambda: with_entries(
            array_entry("a", STRING, [bytes(8 * gguf.MAX_ARRAY_STRINGS + 8)], gguf.MAX_ARRAY_STRINGS + 1)
        ),
        "strings",
    ),
    "strings-item-2pow63": (with_entries(array_entry("a", STRING, [string("x", BIG)])), "'a'"),
    "strings-item-max": (with_entries(array_entry("a", STRING, [string("x", WRAP)])), "'a'"),
    "strings-item-wraps-position": (
        with_entries(array_entry("a", STRING, [string("abc"), string("x", WRAP - 18)])),
        "'a'",
    ),
    "strings-item-16MiB-plus-1": (
        lambda: with_entries(array_entry("a", STRING, [string(bytes((16 << 20) + 1))])),
        "'a'",
    ),
    "alignment-0": (with_alignment(0), "alignment"),
    "alignment-1": (with_alignment(1), "alignment"),
    "alignment-3": (with_alignment(3), "alignment"),
    "alignment-4": (with_alignment(4), "alignment"),
    "alignment-33": (with_alignment(33), "alignment"),
    "alignment-2pow17": (with_alignment(1 << 17), "alignment"),
    "alignment-2pow31": (with_alignment(1 << 31), "alignment"),
    "alignment-2pow63": (with_alignment(BIG, U64), "alignment"),
    "alignment-float": (with_alignment(32, F32), "alignment"),
    "alignment-bool": (with_alignment(1, BOOL), "alignment"),
    "alignment-text": (with_entries(text_entry("general.alignment", "32")), "alignment"),
    "alignment-array": (with_entries(array_entry("general.alignment", U32, [u32(32)])), "alignment"),
    "tensor-name-empty": (with_tensor(tensor("", [4])), "no name"),
    "tensor-name-256": (with_tensor(tensor("n" * 256, [4])), "more than 255"),
    "tensor-name-length-max": (with_tensor(u64(WRAP) + bytes(64)), "more than 255"),
    "tensor-name-not-utf8": (with_tensor(tensor(b"\xc3\x28", [4])), "not UTF-8"),
    "tensor-twice": (with_tensor(tensor("a", [4]), tensor("a", [4], 0, 32)), "'a' occurs twice"),
    "tensor-n-dims-0": (with_tensor(tensor("a", [])), "0 dimensions"),
    "tensor-n-dims-5": (with_tensor(tensor("a", [1, 1, 1, 1, 1])), "5 dimensions"),
    "tensor-n-dims-max": (with_tensor(tensor("a", [1], dimensions=0xFFFFFFFF)), "dimensions"),
    "tensor-dim-0": (with_tensor(tensor("a", [0])), "dimension of 0"),
    "tensor-second-dim-0": (with_tensor(tensor("a", [4, 0])), "dimension of 0"),
    "tensor-dim-2pow63": (with_tensor(tensor("a", [BIG])), "ends inside the data"),
    "tensor-dims-wrap-to-0": (with_tensor(tensor("a", [1 << 32, 1 << 32])), "ends inside the data"),
    "tensor-dims-wrap-to-16": (with_tensor(tensor("a", [4, 1, (1 << 62) + 1])), "ends inside the data"),
    "tensor-dims-negative": (with_tensor(tensor("a", [WRAP])), "ends inside the data"),
    "tensor-q4_0-bytes-wrap": (
        with_tensor(tensor("a", [32, 1 << 31, 1 << 31, 1 << 2], 2)),
        "ends inside the data",
    ),
    "tensor-type-4-removed": (with_tensor(tensor("a", [32], 4)), "'a' has the unknown type 4"),
    "tensor-type-31-removed": (with_tensor(tensor("a", [32], 31)), "'a' has the unknown type 31"),
    "tensor-type-max": (with_tensor(tensor("a", [32], 0xFFFFFFFF)), "'a' has the unknown type"),
    "tensor-rows-not-whole-blocks-q4_0": (with_tensor(tensor("a", [33], 2)), "whole Q4_0 blocks"),
    "tensor-rows-not-whole-blocks-q4_k": (with_tensor(tensor("a", [128, 2], 12)), "whole Q4_K blocks"),
    "tensor-offset-odd": (with_tensor(tensor("a", [4], 0, 1)), "not a multiple of 32"),
    "tensor-offset-8": (with_tensor(tensor("a", [4], 0, 8)), "not a multiple of 32"),
    "tensor-offset-past-the-end": (with_tensor(tensor("a", [4], 0, 4096)), "ends inside the data"),
    "tensor-offset-at-the-end": (with_tensor(tensor("a", [4], 0, 256)), "ends inside the data"),
    "tensor-offset-2pow63": (with_tensor(tensor("a", [4], 0, BIG)), "ends inside the data"),
    "tensor-offset-wraps": (with_tensor(tensor("a", [16], 0, WRAP - 31)), "ends inside the data"),
    "tensor-size-exceeds-file": (with_tensor(tensor("a", [65])), "ends inside the data"),
    "tensor-cut-in-data": (with_tensor(tensor("a", [64]), data=bytes(255)), "ends inside the data"),
    "tensor-no-data": (with_tensor(tensor("a", [4]), data=b""), "ends inside the data"),
    "tensors-overlap": (with_tensor(tensor("a", [16]), tensor("b", [16], 0, 32)), "'a' and 'b' overlap"),
    "tensors-same-place": (with_tensor(tensor("a", [16]), tensor("b", [16])), "overlap"),
    "tensor-info-cut": (GGUFBytes(tensors=[tensor("a" * 30, [4, 4])[:-3]], alignment=1), "ends inside"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_ends_in_a_typed_error(write, name):
    content, message = HOSTILE[name]
    path = write(content() if callable(content) else content)
    tracemalloc.start()
    with pytest.raises((InvalidFileError, UnsupportedModelError), match=message) as caught:
        GGUFFile.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path.parent) not in str(caught.value)
    assert peak < 64 << 20


def test_hostile_table_is_long_enough():
    assert len(HOSTILE) >= 80


def test_version_and_type_are_unsupported_rather_than_damaged(write):
    for name in ("version-1", "big-endian-3", "tensor-type-max"):
        with pytest.raises(UnsupportedModelError):
            GGUFFile.open(write(HOSTILE[name][0]))


def test_every_truncation_is_refused(write):
    content = bytes(small())
    for size in range(len(content)):
        with pytest.raises(InvalidFileError):
            GGUFFile.open(write(content[:size]))
    GGUFFile.open(write(content))


@pytest.mark.parametrize(
    "entry_at_limit",
    [
        text_entry("a", b"x" * (16 << 20)),
        text_entry("k" * 65535, "v"),
        array_entry("a", STRING, [string(bytes(16 << 20))]),
    ],
    ids=["string", "key", "array-string"],
)
def test_sizes_at_the_limit_are_accepted(write, entry_at_limit):
    assert len(GGUFFile.open(write(with_entries(entry_at_limit))).metadata) == 2


def test_array_at_the_limit_is_accepted_without_memory(tmp_path):
    path = tmp_path / "sparse.gguf"
    header = GGUFBytes(entries=[array_entry("a", U8, [], 64 << 20)]).header()
    path.write_bytes(header)
    os.truncate(path, len(header) + (64 << 20))
    tracemalloc.start()
    file = GGUFFile.open(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert len(file.array("a", np.uint8)) == 64 << 20


def test_open_refuses_what_is_no_regular_file(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(InvalidFileError, match="regular"):
            GGUFFile.open(path)


def test_open_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        GGUFFile.open(tmp_path / "missing.gguf")


SOUND = bytes(small())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, len(SOUND) - 1),
            st.sampled_from(["set", "cut", "insert", "big"]),
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_mutated_file_is_read_or_refused(tmp_path, changes):
    content = bytearray(SOUND)
    for position, change, value in changes:
        if change == "set":
            content[position % len(content)] = value
        elif change == "cut":
            del content[position : position + 1 + value % 16]
        elif change == "insert":
            content[position:position] = bytes([value]) * (1 + value % 9)
        else:
            content[position : position + 8] = u64(WRAP - value)
    path = tmp_path / "mutated.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        file = GGUFFile.open(path)
    except (InvalidFileError, UnsupportedModelError):
        pass
    else:
        for name, info in file.tensors.items():
            assert len(file.data(name)) == info.n_bytes
        for value in file.metadata.values():
            assert list(value) if isinstance(value, StringArray) and len(value) else True
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


def test_type_tables_agree_with_the_gguf_package():
    known = {int(kind): size for kind, size in reference.GGML_QUANT_SIZES.items()}
    known[9] = (32, 36)  # the package still has the Q8_1 of before its scale and sum became halves
    names = {int(kind): kind.name for kind in reference.GGMLQuantizationType}
    for number, (name, block, size) in TENSOR_TYPES.items():
        assert known[number] == (block, size)
        assert names[number] == name
    file_types = {int(kind): kind.name for kind in reference.LlamaFileType}
    for number, name in FILE_TYPES.items():
        assert file_types[number] in (f"ALL_{name}", f"MOSTLY_{name}", f"MOSTLY_{name}_MOE")


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_floats_of_every_float_type_are_read(tmp_path, kind):
    values = np.float32([[1.5, -2.0, 0.0], [0.15625, 1024.0, -np.inf]])
    writer = reference.GGUFWriter(tmp_path / "m.gguf", "llama")
    raw_type = reference.GGMLQuantizationType[kind]
    writer.add_tensor("a", reference.quants.quantize(values, raw_type), raw_dtype=raw_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFFile.open(tmp_path / "m.gguf") as file:
        found = file.floats("a")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.ravel())


@pytest.mark.model
def test_real_file_equals_the_gguf_package(smollm2_path):
    theirs = reference.GGUFReader(smollm2_path)
    with GGUFFile.open(smollm2_path) as ours:
        assert len(ours.tensors) == len(theirs.tensors)
        for tensor_info in theirs.tensors:
            info = ours.tensors[tensor_info.name]
            assert info.shape == tuple(tensor_info.shape.tolist())
            assert (info.type, info.offset, info.n_bytes) == (
                int(tensor_info.tensor_type), tensor_info.data_offset, tensor_info.n_bytes
            )  # fmt: skip
        own_keys = {key for key in theirs.fields if not key.startswith("GGUF.")}
        assert set(ours.metadata) == own_keys
        for key in own_keys:
            value = ours.metadata[key]
            if isinstance(value, StringArray):
                value = list(value)
            if isinstance(value, np.ndarray):
                value = value.tolist()
            assert value == theirs.fields[key].contents()
