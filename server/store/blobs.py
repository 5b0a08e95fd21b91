"""Content of models: written once under its blake3 hash, found by its sha256, checked before it is used.

Each sha256 has an alias file that names the blake3 hash and the state (device, inode, size, times) that the
blob had when all of its bytes were last checked. The same state at a load means unchanged bytes; any other
means hashing. Aliases hold nothing that hashing would not give back; recover() replaces missing ones.
"""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal, Self

from blake3 import blake3

from server.store import digest as digests
from server.store import disk
from server.store.errors import BlobNotFoundError, DamagedBlobError, DigestMismatchError, StoreError

log = logging.getLogger(__name__)

VerifyMode = Literal["stat", "full", "off"]

_CHUNK = 1 << 20
_ALIAS_LIMIT = 4096
#: The largest blob that is read into memory: templates, licences, parameters.
_TEXT_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class Alias:
    """What is known about one sha256: its blake3, and the file's state when its bytes were last checked."""

    blake3: str
    size: int
    dev: int
    inode: int
    mtime_ns: int
    ctime_ns: int
    verified_at: int

    @classmethod
    def of(cls, blake3_hex: str, state: os.stat_result) -> Self:
        """The record of a file whose bytes have just been checked."""
        return cls(blake3_hex, *_identity(state), verified_at=time.time_ns())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read an alias file; raises ValueError."""
        found = json.loads(data)
        if not isinstance(found, dict) or not digests.is_hex(found.get("blake3")):
            raise ValueError("not an alias")
        numbers: list[int] = []
        for field in fields(cls)[1:]:
            if type(number := found.get(field.name)) is not int:
                raise ValueError("not an alias")
            numbers.append(number)
        return cls(found["blake3"], *numbers)

    def matches(self, state: os.stat_result) -> bool:
        """Whether the file is in the state in which it was checked."""
        return (self.size, self.dev, self.inode, self.mtime_ns, self.ctime_ns) == _identity(state)


class BlobWriter:
    """One blob on its way in: write() its bytes, then commit() or abort(). As a context manager it aborts."""

    def __init__(self, store: "BlobStore", file: disk.TempFile) -> None:
        self._store = store
        self._file = file
        self._sha256 = hashlib.sha256()
        self._blake3 = blake3()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes; on a full disk the unfinished file is removed and NoSpaceError raised."""
        try:
            with disk.disk_errors("writing a blob"):
                self._file.write(data)
        except StoreError:
            self.abort()
            raise
        self._sha256.update(data)
        self._blake3.update(data)

    def commit(self, expected_sha256: str | None = None) -> str:
        """Keep the blob durably and return `sha256:<hex>`; raises DigestMismatchError and drops the bytes."""
        try:
            actual = self._sha256.hexdigest()
            if expected_sha256 is not None and digests.parse_digest(expected_sha256) != actual:
                expected = digests.format_digest(digests.parse_digest(expected_sha256))
                got = digests.format_digest(actual)
                raise DigestMismatchError(f'digest mismatch, expected "{expected}", got "{got}"')
            self._store.keep(self._file, actual, self._blake3.hexdigest())
        finally:
            self.abort()
        return digests.format_digest(actual)

    def abort(self) -> None:
        """Drop what was written; nothing happens after a commit."""
        self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.abort()


class BlobStore:
    """The blobs of one models folder: ours, and those of an Ollama store beside them, which are only read."""

    def __init__(self, root: Path, verify: VerifyMode = "stat", packed: Path | None = None) -> None:
        own = root / "ollamacore"
        self._blobs = own / "blobs"
        self._aliases = own / "aliases"
        self._temp = own / "tmp"
        self._ollama = root / "blobs"
        self._packed = packed or own / "packed"
        self._verify = verify

    # -- reading --

    def path(self, digest: str) -> Path:
        """The file that holds this digest's bytes, unchecked but for its size; raises BlobNotFoundError."""
        return self._locate(digests.parse_digest(digest))[0]

    def has(self, digest: str) -> bool:
        """Whether the blob is here. A yes restarts its grace period: the client will now rely on it."""
        sha256 = digests.parse_digest(digest)
        try:
            self._locate(sha256)
        except BlobNotFoundError:
            return False
        with contextlib.suppress(OSError):  # a blob of an Ollama store has no alias before its first use
            os.utime(digests.alias_file(self._aliases, sha256))
        return True

    def verified_path(self, digest: str) -> Path:
        """The file of a blob whose bytes are known to be right; raises DamagedBlobError, BlobNotFoundError.

        By `stat` a file in its last checked state is trusted and any other is hashed; `full` always hashes.
        """
        sha256 = digests.parse_digest(digest)
        path, alias = self._locate(sha256)
        if self._verify == "off":
            return path
        with disk.disk_errors("opening a blob"), open(disk.open_regular(path), "rb") as file:
            state = os.fstat(file.fileno())
            if self._verify == "stat" and alias is not None and alias.matches(state):
                return path
            actual_sha256, actual_blake3 = _hash_file(file.fileno(), with_sha256=alias is None)
            changed = _identity(os.fstat(file.fileno())) != _identity(state)
        right = actual_sha256 == sha256 if alias is None else actual_blake3 == alias.blake3
        if changed or not right:
            self._report_damage(sha256, path)
        with contextlib.suppress(StoreError):  # a full disk costs a hash at the next load, not this load
            self._write_alias(sha256, Alias.of(actual_blake3, state))
        return path

    def read(self, digest: str) -> bytes:
        """All bytes of a small blob, checked against the digest."""
        sha256 = digests.parse_digest(digest)
        path, _ = self._locate(sha256)
        with disk.disk_errors("reading a blob"):
            data, _ = disk.read_small(path, _TEXT_LIMIT)
        if hashlib.sha256(data).hexdigest() != sha256:
            self._report_damage(sha256, path)
        return data

    def _locate(self, sha256: str) -> tuple[Path, Alias | None]:
        alias = self._read_alias(sha256)
        candidates = list(digests.ollama_files(self._ollama, sha256))
        if alias is not None:
            candidates.insert(0, digests.blob_file(self._blobs, alias.blake3))
        for path in candidates:
            size = disk.regular_size(path)
            # A truncated file counts as absent, so that uploading it again repairs the store.
            if size is not None and (alias is None or size == alias.size):
                return path, alias
        raise BlobNotFoundError(f"blob {digests.format_digest(sha256)} not found")

    def _report_damage(self, sha256: str, path: Path) -> None:
        """Forget a damaged blob of ours, so that it can be written again, and raise; Ollama's stay as is."""
        log.error("blob sha256:%s is damaged: %s", sha256, path)
        if path.parent == self._blobs:
            with contextlib.suppress(OSError):
                os.unlink(digests.alias_file(self._aliases, sha256))
        raise DamagedBlobError(f"blob sha256:{sha256} is damaged; pull or create the model again")

    # -- writing --

    def writer(self) -> BlobWriter:
        """Begin a new blob."""
        with disk.disk_errors("writing a blob"):
            return BlobWriter(self, disk.TempFile(self._temp))

    def put(self, data: bytes) -> str:
        """Keep these bytes and return their digest."""
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    def add_file(self, path: Path) -> str:
        """Keep a copy of a file of the operator's and return its digest."""
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        with (
            disk.disk_errors("reading the file"),
            open(disk.open_regular(path.resolve()), "rb") as source,
            self.writer() as writer,
        ):
            while count := source.readinto(buffer):
                writer.write(view[:count])
            return writer.commit()

    def keep(self, file: disk.TempFile, sha256: str, blake3_hex: str) -> None:
        """Publish a written file as the blob of these hashes; an old one is replaced, it may be damaged."""
        with disk.disk_errors("writing a blob"):
            state = file.publish(digests.blob_file(self._blobs, blake3_hex))
        self._write_alias(sha256, Alias.of(blake3_hex, state))

    def _read_alias(self, sha256: str) -> Alias | None:
        with disk.disk_errors("reading an alias"):
            try:
                data, _ = disk.read_small(digests.alias_file(self._aliases, sha256), _ALIAS_LIMIT)
                return Alias.parse(data)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno not in disk.NOT_OURS:
                    raise  # too many open files, say, is no reason to give up what is known
            except (ValueError, RecursionError):
                pass
        log.warning("the alias of sha256:%s is damaged; its blob has to be hashed again", sha256)
        return None

    def _write_alias(self, sha256: str, alias: Alias) -> None:
        target = digests.alias_file(self._aliases, sha256)
        with disk.disk_errors("writing a blob"):
            disk.write_atomically(self._temp, target, json.dumps(asdict(alias)).encode())

    # -- housekeeping --

    def recover(self) -> None:
        """After a crash: remove unfinished files, and give each blob whose alias is missing a new one."""
        try:
            with disk.disk_errors("recovering blobs"):
                disk.sweep_temp_files(self._temp)
                for name, path in self._blobs_without_alias():
                    self._adopt(name, path)
        except StoreError as error:  # say, a full disk: the models that are whole must still be served
            log.warning("%s", error)

    def remove(self, sha256: str) -> bool:
        """Delete our copy of a blob; whether there was one. Maps of it stay readable until closed."""
        alias = self._read_alias(sha256)
        if alias is None:
            return False
        with disk.disk_errors("deleting a blob"):
            found = _unlink(digests.blob_file(self._blobs, alias.blake3))
            _unlink(digests.alias_file(self._aliases, sha256))  # last: an alias without a blob is harmless
            self._remove_packed(0)
        return found

    def collect(self, used: set[str], older_than: float) -> int:
        """Delete our blobs that are not in `used` (sha256) and were last touched before then; how many."""
        removed = 0
        with disk.disk_errors("deleting blobs"):
            for name, path in self._blobs_without_alias():
                if not self._adopt(name, path) and path.stat().st_mtime <= older_than:
                    removed += _unlink(path)
            for sha256, path in _own_files(self._aliases):
                if sha256 not in used and path.stat().st_mtime <= older_than:
                    removed += self.remove(sha256)
                    _unlink(path)  # one that is damaged, so that remove() could not use it
            self._remove_packed(older_than)
        return removed

    def _remove_packed(self, older_than: float) -> None:
        """Delete packed weights of blobs that are gone, all but the newest of a blob, and unfinished old ones."""
        kept = set()
        files = [*self._packed.glob("*.packed"), *self._packed.glob(".*.packed.*.tmp")]
        for changed, path in sorted(((path.stat().st_mtime, path) for path in files), reverse=True):
            blob = path.name.removeprefix(".").partition(".")[0]
            if digests.hex_of_file(blob) is None:
                continue  # of a file that is not ours
            if path.suffix == ".tmp":
                is_old = changed <= older_than
            else:
                is_old = blob in kept or not any((folder / blob).exists() for folder in (self._blobs, self._ollama))
                kept.add(blob)
            if is_old:
                _unlink(path)

    def _adopt(self, name: str, path: Path) -> bool:
        """Hash a blob that no alias names and give it one; False if its bytes are not those of its name."""
        with open(disk.open_regular(path), "rb") as file:
            sha256, actual = _hash_file(file.fileno(), with_sha256=True)
            if actual != name:
                log.error("the blob blake3-%s is damaged", name)
                return False
            self._write_alias(sha256, Alias.of(actual, os.fstat(file.fileno())))
        return True

    def _blobs_without_alias(self) -> list[tuple[str, Path]]:
        aliases = (self._read_alias(sha256) for sha256, _ in _own_files(self._aliases))
        known = {alias.blake3 for alias in aliases if alias is not None}
        return [(name, path) for name, path in _own_files(self._blobs) if name not in known]


def _own_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Hash and path of every file in a folder of ours that we named."""
    with os.scandir(folder) as entries:
        for entry in list(entries):
            name = digests.hex_of_file(entry.name)
            if name is not None and entry.is_file(follow_symlinks=False):
                yield name, Path(entry.path)


def _identity(state: os.stat_result) -> tuple[int, int, int, int, int]:
    return state.st_size, state.st_dev, state.st_ino, state.st_mtime_ns, state.st_ctime_ns


def _hash_file(fd: int, *, with_sha256: bool) -> tuple[str, str]:
    """Hash an open file from its start: sha256 (empty unless asked for) and blake3."""
    sha256, fast = hashlib.sha256(), blake3()
    buffer = bytearray(_CHUNK)
    view = memoryview(buffer)
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        fast.update(view[:count])
        if with_sha256:
            sha256.update(view[:count])
        offset += count
    return sha256.hexdigest() if with_sha256 else "", fast.hexdigest()


def _unlink(path: Path) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
