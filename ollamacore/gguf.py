"""Reader of GGUF files: the header is parsed strictly, tensor data is only mapped.

A model file is untrusted input. Every count and size that it declares is compared with the bytes that are
left in the file before anything is allocated for it, every value has a limit, and whatever two readers could
understand differently (duplicate names, overlapping tensors, bools other than 0 and 1) is refused. Texts of
errors never name a path. Which tensor types and architectures can be computed is decided elsewhere.
"""

import mmap
import os
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import isfinite, prod
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self, overload

import numpy as np
import numpy.typing as npt

from ollamacore._core import index_strings
from ollamacore.errors import ClosedError, InvalidFileError, UnsupportedModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MIN_ALIGNMENT = 8
MAX_ALIGNMENT = 65536
MAX_KEY_BYTES = 65535
MAX_STRING_BYTES = 16 << 20
MAX_ARRAY_ITEMS = 64 << 20
MAX_DIMENSIONS = 4
MAX_METADATA = 1 << 16
MAX_TENSORS = 1 << 17
MAX_TENSOR_NAME_BYTES = 255
#: All strings of all arrays together; each costs eight bytes of memory.
MAX_ARRAY_STRINGS = 4 << 20
#: Keys, single strings and tensor names together; they are copied out of the mapping.
MAX_TEXT_BYTES = MAX_STRING_BYTES + (1 << 20)


class TensorType(NamedTuple):
    """How a GGUF tensor type stores its values: `block` values in `bytes` bytes."""

    name: str
    block: int
    bytes: int


#: GGUF type id -> storage. Ids 4, 5, 31-33 and 36-38 were used by formats that no longer exist.
TENSOR_TYPES: Mapping[int, TensorType] = MappingProxyType(
    {
        number: TensorType(name, block, size)
        for number, name, block, size in (
            (0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20),
            (6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34), (9, "Q8_1", 32, 36),
            (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110), (12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176),
            (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292), (16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74),
            (18, "IQ3_XXS", 256, 98), (19, "IQ1_S", 256, 50), (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110),
            (22, "IQ2_S", 256, 82), (23, "IQ4_XS", 256, 136), (24, "I8", 1, 1), (25, "I16", 1, 2),
            (26, "I32", 1, 4), (27, "I64", 1, 8), (28, "F64", 1, 8), (29, "IQ1_M", 256, 56),
            (30, "BF16", 1, 2), (34, "TQ1_0", 256, 54), (35, "TQ2_0", 256, 66), (39, "MXFP4", 32, 17),
        )
    }
)  # fmt: skip

#: general.file_type -> the name that Ollama prints as quantization level.
FILE_TYPES: Mapping[int, str] = MappingProxyType(
    {
        0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
        12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
        19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
        26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
        36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
    }
)  # fmt: skip

_BOOL, _STRING, _ARRAY = 7, 8, 9
_SCALARS = {
    0: struct.Struct("<B"), 1: struct.Struct("<b"), 2: struct.Struct("<H"), 3: struct.Struct("<h"),
    4: struct.Struct("<I"), 5: struct.Struct("<i"), 6: struct.Struct("<f"), 7: struct.Struct("<B"),
    10: struct.Struct("<Q"), 11: struct.Struct("<q"), 12: struct.Struct("<d"),
}  # fmt: skip
_ARRAY_DTYPES = {
    0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?",
    10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
#: what follows the number of dimensions of a tensor: its shape, type and offset
_PLACES = {n: struct.Struct(f"<{n}QIQ") for n in range(1, MAX_DIMENSIONS + 1)}
#: tensor types whose values are read here (norm weights, biases, rope factors)
_FLOATS = {"F32": np.float32, "F16": np.float16}
_SMALLEST_ENTRY = 8 + 4 + 1
_SMALLEST_TENSOR = 8 + 4 + 8 + 4 + 8
_REQUIRED: Any = object()


class TensorInfo(NamedTuple):
    """One row of the tensor directory. `shape[0]` is contiguous; `offset` counts from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: int
    type_name: str
    offset: int
    n_bytes: int

    @property
    def n_values(self) -> int:
        """How many numbers the tensor holds."""
        return prod(self.shape)


class StringArray(Sequence[str]):
    """The strings of a metadata array, decoded when asked for.

    `buffer` is the raw region of the file and `offsets` (uint64, one more than there are strings) cuts it
    into records: string i is `buffer[offsets[i] + 8 : offsets[i + 1]]`, after a length of eight bytes.
    """

    __slots__ = ("buffer", "offsets")

    def __init__(self, buffer: memoryview, offsets: npt.NDArray[np.uint64]) -> None:
        self.buffer = buffer
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def raw(self, index: int) -> bytes:
        """The bytes of one string; they need not be UTF-8."""
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError("string index out of range")
        return bytes(self.buffer[int(self.offsets[index]) + 8 : int(self.offsets[index + 1])])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """One string or a list of them; bytes that are not UTF-8 become U+FFFD."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.raw(index).decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        buffer, offsets = self.buffer, self.offsets.tolist()
        for start, end in pairwise(offsets):
            yield str(buffer[start + 8 : end], "utf-8", "replace")

    def __repr__(self) -> str:
        return f"StringArray({len(self)} strings)"


class _Reader:
    """A cursor over the mapped file; every read is checked against what is left."""

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.position = 0
        self.text_left = MAX_TEXT_BYTES
        self.strings_left = MAX_ARRAY_STRINGS

    @property
    def left(self) -> int:
        return len(self.view) - self.position

    def take(self, size: int, what: str) -> int:
        """Move past `size` bytes and return where they start."""
        start = self.position
        if size > len(self.view) - start:
            raise InvalidFileError(f"the file ends inside {what}")
        self.position = start + size
        return start

    def u32(self, what: str) -> int:
        return int(_U32.unpack_from(self.view, self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack_from(self.view, self.take(8, what))[0])

    def fields(self, layout: struct.Struct, what: str) -> tuple[int, ...]:
        return layout.unpack_from(self.view, self.take(layout.size, what))

    def text(self, limit: int, what: str) -> str:
        size = self.u64(what)
        if size > limit:
            raise InvalidFileError(f"{what} has {size} bytes, more than {limit}")
        self.text_left -= size
        if self.text_left < 0:
            raise InvalidFileError(f"the texts of the header have more than {MAX_TEXT_BYTES} bytes")
        start = self.take(size, what)
        try:
            return str(self.view[start : start + size], "utf-8")
        except UnicodeDecodeError:
            raise InvalidFileError(f"{what} is not UTF-8") from None

    def value(self, kind: int, what: str) -> Any:
        if kind == _STRING:
            return self.text(MAX_STRING_BYTES, what)
        if kind == _ARRAY:
            return self.array(what)
        scalar = _SCALARS.get(kind)
        if scalar is None:
            raise InvalidFileError(f"{what} has the unknown value type {kind}")
        value = scalar.unpack_from(self.view, self.take(scalar.size, what))[0]
        if kind != _BOOL:
            return value
        if value > 1:
            raise InvalidFileError(f"{what} is a bool of value {value}")
        return value == 1

    def array(self, what: str) -> "StringArray | npt.NDArray[Any]":
        kind = self.u32(f"the item type of {what}")
        count = self.u64(f"the length of {what}")
        if kind == _ARRAY:
            raise InvalidFileError(f"{what} is an array of arrays")
        if kind != _STRING and kind not in _ARRAY_DTYPES:
            raise InvalidFileError(f"{what} has items of the unknown type {kind}")
        if count > MAX_ARRAY_ITEMS:
            raise InvalidFileError(f"{what} has {count} items, more than {MAX_ARRAY_ITEMS}")
        if kind == _STRING:
            return self.strings(count, what)
        dtype = np.dtype(_ARRAY_DTYPES[kind])
        start = self.take(count * dtype.itemsize, what)
        if kind == _BOOL and np.frombuffer(self.view, np.uint8, count, start).max(initial=0) > 1:
            raise InvalidFileError(f"{what} has bools other than 0 and 1")
        items = np.frombuffer(self.view, dtype, count, start)
        if not items.flags.aligned:  # the file aligns tensors only; C reads these arrays as they are
            items = items.copy()
            items.flags.writeable = False
        return items

    def strings(self, count: int, what: str) -> StringArray:
        if count * 8 > self.left:
            raise InvalidFileError(f"the file ends inside {what}")
        self.strings_left -= count
        if self.strings_left < 0:
            raise InvalidFileError(f"the arrays of the header have more than {MAX_ARRAY_STRINGS} strings")
        offsets = np.empty(count + 1, np.uint64)
        try:
            index_strings(self.view[self.position :], MAX_STRING_BYTES, offsets)
        except InvalidFileError as error:
            raise InvalidFileError(f"{what}: {error}") from None
        offsets.flags.writeable = False
        size = int(offsets[count])
        start = self.take(size, what)
        return StringArray(self.view[start : start + size], offsets)


def _read_version(reader: _Reader) -> int:
    if bytes(reader.view[:4]) != MAGIC:
        raise InvalidFileError("not a GGUF file")
    reader.position = 4
    version = reader.u32("the version")
    if version in VERSIONS:
        return version
    if version & 0xFFFF == 0 and version:
        raise UnsupportedModelError("big-endian GGUF files are not supported")
    raise UnsupportedModelError(f"GGUF version {version} is not supported")


def _read_metadata(reader: _Reader, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(count):
        key = reader.text(MAX_KEY_BYTES, f"metadata key {index}")
        if not key:
            raise InvalidFileError(f"metadata key {index} is empty")
        if key in metadata:
            raise InvalidFileError(f"metadata key {key!r} occurs twice")
        metadata[key] = reader.value(reader.u32(f"the type of {key!r}"), f"metadata value {key!r}")
    return metadata


def _read_alignment(reader: _Reader, metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int:
        raise InvalidFileError("general.alignment has the wrong type")
    if not MIN_ALIGNMENT <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise InvalidFileError(f"general.alignment {alignment} is not a power of two from 8 to 65536")
    return alignment


def _tensor_bytes(name: str, shape: tuple[int, ...], number: int) -> tuple[TensorType, int]:
    """Storage type and size of a tensor; Python's integers cannot wrap."""
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        raise UnsupportedModelError(f"tensor {name!r} has the unknown type {number}")
    if shape[0] % kind.block:
        raise InvalidFileError(f"tensor {name!r}: rows of {shape[0]} values are no whole {kind.name} blocks")
    return kind, prod(shape) // kind.block * kind.bytes


def _read_tensor(reader: _Reader, index: int, alignment: int) -> TensorInfo:
    """One directory entry; its offset still counts from the start of the data section."""
    name = reader.text(MAX_TENSOR_NAME_BYTES, f"the name of tensor {index}")
    if not name:
        raise InvalidFileError(f"tensor {index} has no name")
    what = f"tensor {name!r}"
    dimensions = reader.u32(what)
    if dimensions not in _PLACES:
        raise InvalidFileError(f"{what} has {dimensions} dimensions")
    *shape, number, offset = reader.fields(_PLACES[dimensions], what)
    if 0 in shape:
        raise InvalidFileError(f"{what} has a dimension of 0")
    if offset % alignment:
        raise InvalidFileError(f"the offset of {what} is not a multiple of {alignment}")
    kind, size = _tensor_bytes(name, tuple(shape), number)
    return TensorInfo(name, tuple(shape), number, kind.name, offset, size)


def _read_tensors(reader: _Reader, count: int, alignment: int) -> dict[str, TensorInfo]:
    found: dict[str, TensorInfo] = {}
    for index in range(count):
        info = _read_tensor(reader, index, alignment)
        if info.name in found:
            raise InvalidFileError(f"tensor {info.name!r} occurs twice")
        found[info.name] = info
    start = -(-reader.position // alignment) * alignment
    placed = {name: info._replace(offset=start + info.offset) for name, info in found.items()}
    _check_places(placed, len(reader.view))
    return placed


def _check_places(tensors: Mapping[str, TensorInfo], file_size: int) -> None:
    """Every tensor lies inside the file and no two share a byte."""
    end, before = 0, ""
    for info in sorted(tensors.values(), key=lambda tensor: tensor.offset):
        if info.offset + info.n_bytes > file_size:
            raise InvalidFileError(f"the file ends inside the data of tensor {info.name!r}")
        if info.offset < end:
            raise InvalidFileError(f"tensors {before!r} and {info.name!r} overlap")
        end, before = info.offset + info.n_bytes, info.name


def _map_file(path: Path) -> mmap.mmap:
    """Map a regular file read-only. With O_NONBLOCK a FIFO or device cannot hold us before we look at it."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidFileError("not a regular file")
        if status.st_size < len(MAGIC) + 4:
            raise InvalidFileError("not a GGUF file")
        return mmap.mmap(handle, status.st_size, access=mmap.ACCESS_READ)
    finally:
        os.close(handle)


class GGUFFile:
    """An open GGUF file: metadata, tensor directory and the mapped tensor data.

    Arrays and tensor data are views of the mapping, which stays until the last of them is gone, even after
    `close`.
    """

    path: Path
    version: int
    alignment: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._view: memoryview | None = memoryview(_map_file(self.path))
        reader = _Reader(self._view)
        self.version = _read_version(reader)
        n_tensors = reader.u64("the number of tensors")
        n_metadata = reader.u64("the number of metadata entries")
        if n_tensors > min(MAX_TENSORS, reader.left // _SMALLEST_TENSOR):
            raise InvalidFileError(f"the file cannot hold {n_tensors} tensors")
        if n_metadata > min(MAX_METADATA, reader.left // _SMALLEST_ENTRY):
            raise InvalidFileError(f"the file cannot hold {n_metadata} metadata entries")
        metadata = _read_metadata(reader, n_metadata)
        self.metadata = MappingProxyType(metadata)
        self.alignment = _read_alignment(reader, metadata)
        self.tensors = MappingProxyType(_read_tensors(reader, n_tensors, self.alignment))
        self._header_bytes = reader.position

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open and check a file: InvalidFileError, UnsupportedModelError, or OSError if it cannot be read."""
        return cls(path)

    def drop_header(self) -> None:
        """Let go of the memory that the header takes; what is read of it again comes from the page cache."""
        if self._view is not None and isinstance(self._view.obj, mmap.mmap):
            self._view.obj.madvise(mmap.MADV_DONTNEED, 0, self._header_bytes)

    def close(self) -> None:
        """Let go of the mapping; it is unmapped when the last view of it is gone."""
        self._view = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
        """The value of `key`, which must be of type `kind` (bool is not int; a float must be finite).

        A value of another type is an InvalidFileError, and so is a missing one unless `default` is given.
        """
        if key not in self.metadata:
            if default is _REQUIRED:
                raise InvalidFileError(f"metadata key {key!r} is missing")
            return default
        value = self.metadata[key]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(k.__name__ for k in kinds)
            raise InvalidFileError(f"metadata value {key!r} is a {type(value).__name__}, not a {wanted}")
        if isinstance(value, float) and not isfinite(value):
            raise InvalidFileError(f"metadata value {key!r} is not a finite number")
        return value

    def array(
        self, key: str, dtype: npt.DTypeLike, length: int | None = None, default: Any = _REQUIRED
    ) -> Any:
        """The numeric array `key`, whose items must be stored as `dtype`; `length` is checked where given."""
        if key not in self.metadata and default is not _REQUIRED:
            return default
        value = self.get(key, np.ndarray)
        if value.dtype != np.dtype(dtype):
            raise InvalidFileError(
                f"metadata value {key!r} has items of type {value.dtype}, not {np.dtype(dtype)}"
            )
        if length is not None and len(value) != length:
            raise InvalidFileError(f"metadata value {key!r} has {len(value)} items, not {length}")
        return value

    def data(self, name: str) -> memoryview:
        """The stored bytes of one tensor, inside the mapping. KeyError when there is no such tensor."""
        info = self.tensors[name]
        if self._view is None:
            raise ClosedError("the GGUF file is closed")
        return self._view[info.offset : info.offset + info.n_bytes]

    def floats(self, name: str, n: int | None = None) -> npt.NDArray[np.float32]:
        """The values of a small tensor; an error names it if it is missing, has not `n` values, or is quantised."""
        info = self.tensors.get(name)
        if info is None:
            raise InvalidFileError(f"tensor {name!r} is missing")
        if n is not None and info.shape != (n,):
            raise InvalidFileError(f"tensor {name!r} has shape {info.shape} instead of {(n,)}")
        if info.type_name == "BF16":  # the upper halves of floats
            return (np.frombuffer(self.data(name), dtype=np.uint16).astype(np.uint32) << 16).view(np.float32)
        if info.type_name not in _FLOATS:
            raise UnsupportedModelError(f"tensor {name!r} has type {info.type_name}, expected F32, F16 or BF16")
        values = np.frombuffer(self.data(name), dtype=_FLOATS[info.type_name])
        return np.ascontiguousarray(values, dtype=np.float32)

    @property
    def architecture(self) -> str:
        """general.architecture; InvalidFileError when it is missing."""
        return str(self.get("general.architecture", str))

    @property
    def parameter_count(self) -> int:
        """How many numbers the tensors hold."""
        return sum(info.n_values for info in self.tensors.values())

    @property
    def file_type_name(self) -> str:
        """Quantization level as Ollama prints it ("Q4_K_M"); "unknown" when the file does not say."""
        value = self.metadata.get("general.file_type")
        return FILE_TYPES.get(value, "unknown") if type(value) is int else "unknown"
