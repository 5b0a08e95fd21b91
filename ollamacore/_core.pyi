"""Types of the extension module."""

from typing_extensions import Buffer

# ---- kernels ----
def set_cpu_mask(name: str | None = None) -> None: ...
def kernel_rows() -> list[tuple[str, str, str, int, str, bool]]: ...
def format_rows() -> list[tuple[int, str, int, int, int, bool]]: ...
def dequantize(gguf_type: int, data: Buffer, y: Buffer) -> None: ...
def packed_bytes(gguf_type: int, n_rows: int, k: int) -> int: ...
def pack(
    gguf_type: int, data: Buffer, n_rows: int, k: int, out: Buffer, g0: int = 0, g1: int | None = None
) -> None: ...
def unpack_row(gguf_type: int, packed: Buffer, row: int, y: Buffer) -> None: ...
def run_quantize(index: int, x: Buffer, k: int, codes: Buffer, scale: Buffer, sum: Buffer) -> None: ...
def run_matmul(
    index: int,
    packed: Buffer,
    f32: Buffer,
    codes: Buffer,
    scale: Buffer,
    sum: Buffer,
    n: int,
    k: int,
    y: Buffer,
    ldy: int,
    g0: int,
    g1: int,
) -> None: ...

# ---- engine ----

# ---- sampler ----

# ---- text ----
