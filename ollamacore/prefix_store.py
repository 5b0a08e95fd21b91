"""Prefixes that outlive the process: KV blocks of the prefix cache in files, one for each model and KV type.

A file holds, in this order: magic and size of the header; the header, JSON that names the model's content, the KV type,
the size of a block, the numbers of this build; per block the place of its parent and its 32 tokens; the blocks; the
blake3 digest of all that. It is written to a temporary file and renamed. A file that does not match, or whose digest
is wrong, is ignored with a line in the log. It holds what its users wrote, so nobody else may read it.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import IO

from blake3 import blake3

from ollamacore import _core
from ollamacore.errors import OllamaCoreError
from ollamacore.prefix import BLOCK, Entry, PrefixCache

log = logging.getLogger(__name__)

_MAGIC = b"OCPREFIX"
#: to be raised with any change of the file, of the blocks, or of the numbers in them
_LAYOUT = 1
_START = struct.Struct("<8sI")
_NODE = struct.Struct(f"<i{4 * BLOCK}s")
_DIGEST_BYTES = 32
_MAX_HEADER = 4096
_SUFFIX, _PART = ".prefixes", ".part"
#: temporary files of processes that died are deleted after this time
_STALE_SECONDS = 3600


class _Refused(Exception):
    """Why a file is not used."""


@dataclass(frozen=True, slots=True)
class PrefixStore:
    """A folder that keeps the prefixes of all models, at most `max_bytes` in all, while they are not loaded."""

    folder: Path
    max_bytes: int

    def of(self, model: Path, kv_type: str, block_bytes: int) -> PrefixFile:
        """The prefixes of one model file."""
        return PrefixFile(self, model, kv_type, block_bytes)

    def prune(self) -> None:
        """Delete what crashed writers left, and the oldest files beyond the limit."""
        room = self.max_bytes
        files = [path for path in self.folder.iterdir() if path.suffix in (_SUFFIX, _PART)]
        for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
            status = path.stat()
            if path.suffix == _SUFFIX:
                room -= status.st_size
            if room < 0 or (path.suffix == _PART and status.st_mtime < time.time() - _STALE_SECONDS):
                path.unlink(missing_ok=True)


class PrefixFile:
    """The file of one model, and the way between it and a prefix cache. Used by the engine's thread only."""

    def __init__(self, store: PrefixStore, model: Path, kv_type: str, block_bytes: int) -> None:
        self._store = store
        self._model = model
        self._kv_type = kv_type
        self._block_bytes = block_bytes

    @cached_property
    def _digest(self) -> str:
        """The content of the model file; as of the first use, which is when the model was loaded."""
        return blake3().update_mmap(self._model).hexdigest()

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._store.folder / f"{self._digest[:32]}-{self._kv_type}{_SUFFIX}"

    def _header(self, blocks: int) -> bytes:
        rows = _core.kernel_rows()
        kernels = sorted(rows[index][2] for index in _core.chosen_rows())
        header = {
            "layout": _LAYOUT,
            "model": self._digest,
            "kv_type": self._kv_type,
            "block_bytes": self._block_bytes,
            "numbers": blake3("\n".join(kernels).encode()).hexdigest(),
            "blocks": blocks,
        }
        return json.dumps(header).encode()

    # ---- writing ----

    def save(self, engine: _core.Engine, cache: PrefixCache) -> None:
        """Write the most recently used blocks, as many as the limit allows; a failure is logged."""
        room = self._store.max_bytes - _START.size - _MAX_HEADER - _DIGEST_BYTES
        entries = cache.entries(max(room // (self._block_bytes + _NODE.size), 0))
        if not entries:
            return
        try:
            self._store.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(engine, entries)
            self._store.prune()
        except OSError as error:
            log.warning("prefixes of %s are not kept: %s", self._model.name, error)
        else:
            log.info("kept %d blocks of prefixes of %s", len(entries), self._model.name)

    def _write(self, engine: _core.Engine, entries: list[Entry]) -> None:
        descriptor, name = tempfile.mkstemp(suffix=_PART, dir=self._store.folder)
        try:
            with open(descriptor, "wb") as file:
                digest = blake3()
                header = self._header(len(entries))
                head = (_START.pack(_MAGIC, len(header)), header)
                nodes = (_NODE.pack(entry.parent, entry.tokens) for entry in entries)
                blocks = (engine.read_block(entry.block) for entry in entries)
                for data in chain(head, nodes, blocks):
                    digest.update(data)
                    file.write(data)
                file.write(digest.digest())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    # ---- reading ----

    def restore(self, engine: _core.Engine, cache: PrefixCache) -> None:
        """Put the file's blocks into an empty cache; a file that cannot be used is logged and left alone."""
        try:
            with self.path.open("rb") as file:
                entries = self._read(engine, cache.limit, file)
        except FileNotFoundError:
            return
        except (OSError, OllamaCoreError, _Refused) as error:
            log.warning("kept prefixes of %s are ignored: %s", self._model.name, error)
            return
        cache.restore(entries)
        log.info("restored %d blocks of prefixes of %s", len(entries), self._model.name)

    def _read(self, engine: _core.Engine, most: int, file: IO[bytes]) -> list[Entry]:
        source = _Source(file)
        magic, size = _START.unpack(source.take(_START.size))
        if magic != _MAGIC or size > _MAX_HEADER:
            raise _Refused("not a file of prefixes")
        header = source.take(size)
        each = _NODE.size + self._block_bytes
        count, rest = divmod(os.fstat(file.fileno()).st_size - file.tell() - _DIGEST_BYTES, each)
        if rest or header != self._header(count):
            raise _Refused("made for another model, KV type or build, or of another size than it says")
        nodes = [_NODE.unpack(source.take(_NODE.size)) for _ in range(count)]
        if not all(-1 <= parent < place for place, (parent, _) in enumerate(nodes)):
            raise _Refused("a block stands before its parent")
        blocks: list[int] = []
        try:
            for place in range(count):
                data = source.take(self._block_bytes)
                if place < most:
                    blocks.append(engine.add_block(data))
            source.check()
        except BaseException:
            for block in blocks:
                engine.release_block(block)
            raise
        return [Entry(parent, tokens, block) for (parent, tokens), block in zip(nodes, blocks, strict=False)]


class _Source:
    """A file that is read once, from front to back, and then compared with the digest at its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = blake3()

    def take(self, size: int) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        if len(data) != size:
            raise _Refused("the file ends early")
        self._digest.update(data)
        return data

    def check(self) -> None:
        """Refuse what was taken if the rest of the file is not its digest."""
        if self._file.read() != self._digest.digest():
            raise _Refused("its checksum is wrong")
