"""Types of the extension module."""

# ---- kernels ----

# ---- engine ----

# ---- sampler ----

# ---- text ----
from _typeshed import ReadableBuffer

class Vocabulary:
    count: int
    def __init__(
        self,
        *,
        model: str,
        pre: str,
        tokens: tuple[ReadableBuffer, ReadableBuffer, int],
        merges: tuple[ReadableBuffer, ReadableBuffer, int] | None = None,
        scores: ReadableBuffer | None = None,
        types: ReadableBuffer | None = None,
        unknown: int = -1,
        ignore_merges: bool = False,
        add_space_prefix: bool = False,
    ) -> None: ...
    def encode(self, text: bytes, parse_special: bool) -> list[int]: ...
    def spelling(self, id: int) -> bytes: ...
    def piece(self, id: int, special: bool = False) -> bytes: ...
    def type(self, id: int) -> int: ...
