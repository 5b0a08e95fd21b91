"""How the weights of a model get into memory: packed, taken from a copy that was packed before, or left in their file.

A packed copy is one file: a page of header, then the weights as the engine has them in memory. It is mapped, so that
processes share it and the system may evict it like any page cache. Its name and header hold a digest of everything
that the bytes depend on; whatever does not fit is ignored and written again.
"""

import contextlib
import logging
import mmap
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from ollamacore import _core
from ollamacore.arch.plan import Plan
from ollamacore.errors import InvalidFileError

log = logging.getLogger(__name__)

_MAGIC = b"OCPACKED"
#: magic, layout version, header bytes, identity of the source, bytes of weights; a digest ends the header
_HEADER = struct.Struct("<8sII32sQ")
_HEADER_BYTES = 4096
_DIGEST_BYTES = 32
_CHUNK = 1 << 22
#: disk space that writing a copy leaves free
_SPARE_DISK = 256 << 20


def load_weights(engine: _core.Engine, plan: Plan, *, repack: bool, packed_cache: Path | None) -> None:
    """Load the weights of an installed plan; `repack` False leaves them in their file, `packed_cache` is a folder."""
    if not repack:
        engine.load_source()
        return
    if packed_cache is None:
        engine.load()
        return
    identity = _identity(plan)
    copy = copy_path(packed_cache, plan.file.path, identity)
    if not _load_copy(engine, copy, identity):
        engine.load()
        _write_copy(engine, copy, identity)


def copy_path(folder: Path, source: Path, identity: bytes) -> Path:
    """Where the packed copy of a file lies: its name begins with the file's own."""
    return folder / f"{source.name}.{identity.hex()[:16]}.packed"


def _identity(plan: Plan) -> bytes:
    """A digest of what packed weights depend on: layout, order and types of matrices, and the file's state."""
    state = plan.file.path.stat()
    facts = (_core.PACKED_LAYOUT, state.st_size, state.st_mtime_ns, plan.matrices, plan.source_tensors())
    return blake2b(repr(facts).encode(), digest_size=_DIGEST_BYTES).digest()


def _header(identity: bytes, size: int) -> bytes:
    fields = _HEADER.pack(_MAGIC, _core.PACKED_LAYOUT, _HEADER_BYTES, identity, size)
    text = fields.ljust(_HEADER_BYTES - _DIGEST_BYTES, b"\0")
    return text + blake2b(text, digest_size=_DIGEST_BYTES).digest()


def _load_copy(engine: _core.Engine, path: Path, identity: bytes) -> bool:
    """Load a packed copy, if there is one that is whole and made of this very file."""
    try:
        weights = _map_copy(path, identity)
        if weights is None:
            return False
        engine.load_packed(weights)
    except FileNotFoundError:
        return False
    except (OSError, InvalidFileError) as error:
        log.warning("the packed copy %s cannot be used: %s", path.name, error)
        return False
    return True


def _map_copy(path: Path, identity: bytes) -> memoryview | None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a fifo must not hang who opens it
    try:
        state = os.fstat(fd)
        size = state.st_size - _HEADER_BYTES
        if not stat.S_ISREG(state.st_mode) or size <= 0:
            return None
        if os.pread(fd, _HEADER_BYTES, 0) != _header(identity, size):
            return None
        mapped = mmap.mmap(fd, state.st_size, access=mmap.ACCESS_READ)
    finally:
        os.close(fd)
    mapped.madvise(mmap.MADV_WILLNEED)
    return memoryview(mapped)[_HEADER_BYTES:]


def _write_copy(engine: _core.Engine, path: Path, identity: bytes) -> None:
    """Write a packed copy as a whole; a full disk, or any other, only means that there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        disk = os.statvfs(path.parent)
        if disk.f_bavail * disk.f_frsize < engine.weight_bytes + _SPARE_DISK:
            log.warning("no packed copy: the disk has too little space")
            return
        with _replaced(path) as fd:
            size = 0
            _write(fd, bytes(_HEADER_BYTES))
            while chunk := engine.packed_weights(size, _CHUNK):
                _write(fd, chunk)
                size += len(chunk)
            os.pwrite(fd, _header(identity, size), 0)
    except OSError as error:
        log.warning("no packed copy: %s", error.strerror or error)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[int]:
    """A file to write, which gets its name once it is whole and on the disk, or vanishes."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        yield fd
        os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
