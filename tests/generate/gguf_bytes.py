"""GGUF files written byte by byte, so that tests can damage a field. Sound ones come from gguf.GGUFWriter."""

import struct
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B",
           U64: "Q", I64: "q", F64: "d"}  # fmt: skip


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: bytes | str, length: int | None = None) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return u64(len(raw) if length is None else length) + raw


def scalar(kind: int, value: float) -> bytes:
    return struct.pack("<" + FORMATS[kind], value)


def entry(key: bytes | str, kind: int, payload: bytes) -> bytes:
    return string(key) + u32(kind) + payload


def text_entry(key: bytes | str, value: bytes | str) -> bytes:
    return entry(key, STRING, string(value))


def array_entry(key: str, kind: int, items: list[bytes], count: int | None = None) -> bytes:
    return entry(key, ARRAY, u32(kind) + u64(len(items) if count is None else count) + b"".join(items))


def tensor(name: bytes | str, shape: list[int], kind: int = 0, offset: int = 0, dimensions: int | None = None) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    return string(name) + u32(count) + b"".join(map(u64, shape)) + u32(kind) + u64(offset)


@dataclass
class GGUFBytes:
    """One file; `bytes()` puts the parts together. Counts follow the lists unless they are set."""

    entries: list[bytes] = field(default_factory=lambda: [text_entry("general.architecture", "llama")])
    tensors: list[bytes] = field(default_factory=list)
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: bytes = u32(3)
    n_tensors: int | None = None
    n_entries: int | None = None
    alignment: int = 32

    def header(self) -> bytes:
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_entries = len(self.entries) if self.n_entries is None else self.n_entries
        return b"".join([self.magic, self.version, u64(n_tensors), u64(n_entries), *self.entries, *self.tensors])

    def __bytes__(self) -> bytes:
        header = self.header()
        return header + b"\0" * (-len(header) % self.alignment) + self.data
