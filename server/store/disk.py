"""How the store touches the disk: regular files only, durable atomic writes, locks that die with the process.

A write is complete or absent after a crash at any moment, because the order is always: locked temp file
(0600), bytes, fsync(file), rename, fsync(folder). A crash leaves at most temp files that nobody locks; they
are swept away at the next start.
"""

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from server.store.errors import NoSpaceError, StoreError

log = logging.getLogger(__name__)

_TEMP_SUFFIX = ".tmp"
_TEMP_LENGTH = 32 + len(_TEMP_SUFFIX)
#: What open_regular() and read_small() raise when it is not the file that it should be.
NOT_OURS = (errno.EINVAL, errno.EFBIG)
#: NONBLOCK: a fifo must not hang who opens it
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def disk_errors(action: str) -> Iterator[None]:
    """Turn an OSError into a StoreError that says what failed and why, but not where."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(f"{action}: no space left on the device") from error
        reason = os.strerror(error.errno) if error.errno else "input/output error"
        raise StoreError(f"{action}: {reason}") from error


def open_regular(path: Path) -> int:
    """Open a regular file for reading; symlinks, fifos, devices and folders raise OSError(EINVAL)."""
    try:
        fd = os.open(path, _READ_FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a symlink, a socket
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return fd


def regular_size(path: Path) -> int | None:
    """The size of a regular file, or None where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def read_small(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """The bytes and state of a regular file of at most `limit` bytes; a larger one raises OSError(EFBIG)."""
    with open(open_regular(path), "rb") as file:
        data = file.read(limit + 1)
        if len(data) > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return data, os.fstat(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(base: Path, parts: tuple[str, ...] = ()) -> Path:
    """Make `base/parts...` durably and return it; a part that is a symlink is refused."""
    folder = base
    for part in parts:
        folder = folder / part
        try:
            os.mkdir(folder, 0o755)
            sync_folder(folder.parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
    return folder


@contextlib.contextmanager
def lock(path: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold an advisory lock, shared or exclusive, against other threads and other processes."""
    with disk_errors("locking the store"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with disk_errors("locking the store"):
            fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


class TempFile:
    """A new file that becomes `target` as a whole by publish(), or vanishes by discard()."""

    def __init__(self, folder: Path) -> None:
        while True:
            self._path = folder / (secrets.token_hex(16) + _TEMP_SUFFIX)
            self._fd = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            try:
                if _try_lock(self._fd) and os.fstat(self._fd).st_nlink:
                    return
            except OSError:
                self.discard()
                raise
            self._close()  # a sweep of another process came between open and lock: take another name

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append all of the data."""
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def publish(self, target: Path) -> os.stat_result:
        """Give the file its name durably, replacing what had it, and return its state; the file is closed."""
        os.fchmod(self._fd, 0o644)
        os.fsync(self._fd)
        os.rename(self._path, target)
        sync_folder(target.parent)
        state = os.fstat(self._fd)  # after the rename, which changes ctime
        self._close()
        return state

    def discard(self) -> None:
        """Remove the file; nothing happens after publish() or a second time."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.discard()


def write_atomically(temp_folder: Path, target: Path, data: bytes) -> None:
    """Replace a small file as a whole."""
    with TempFile(temp_folder) as file:
        file.write(data)
        file.publish(target)


def sweep_temp_files(folder: Path) -> None:
    """Remove what dead writers left; files that a living writer has locked, and foreign names, stay."""
    for entry in os.scandir(folder):
        if not (entry.name.endswith(_TEMP_SUFFIX) and len(entry.name) == _TEMP_LENGTH):
            continue
        with contextlib.suppress(OSError):
            fd = open_regular(Path(entry.path))
            try:
                if _try_lock(fd):
                    os.unlink(entry.path)
                    log.info("removed the unfinished file %s", entry.name)
            finally:
                os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
