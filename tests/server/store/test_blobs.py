"""Blobs: written under blake3, found by sha256, never trusted without a check; Ollama's are left alone."""

import errno
import json
import os
import threading

import pytest
from blake3 import blake3

from server.store.errors import (
    BlobNotFoundError,
    DamagedBlobError,
    DigestMismatchError,
    InvalidDigestError,
    NoSpaceError,
    StoreError,
)
from server.store.store import Store
from tests.server.store.conftest import blob_files, sha256, snapshot, temp_files

DATA = bytes(range(256)) * 5000
DIGEST = f"sha256:{sha256(DATA)}"


def own_blob(root, data=DATA):
    return root / "ollamacore" / "blobs" / f"blake3-{blake3(data).hexdigest()}"


def alias(root, data=DATA):
    return root / "ollamacore" / "aliases" / f"sha256-{sha256(data)}"


def fake_check(root):
    """Make the alias say that the blob as it is now has been checked."""
    state = own_blob(root).stat()
    found = json.loads(alias(root).read_text())
    found |= {"size": state.st_size, "dev": state.st_dev, "inode": state.st_ino}
    found |= {"mtime_ns": state.st_mtime_ns, "ctime_ns": state.st_ctime_ns}
    alias(root).write_text(json.dumps(found))


def flip(path, position=1000):
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def test_written_blob_is_found_by_sha256_and_lies_under_blake3(store, root):
    with store.writer() as writer:
        for start in range(0, len(DATA), 7777):
            writer.write(DATA[start : start + 7777])
        assert writer.commit(DIGEST) == DIGEST
    assert store.has_blob(DIGEST)
    assert store.has_blob("sha256-" + sha256(DATA).upper())
    assert store.blob_path(DIGEST) == own_blob(root)
    assert own_blob(root).read_bytes() == DATA
    assert own_blob(root).stat().st_mode & 0o777 == 0o644
    assert blob_files(root) == [own_blob(root).name]
    assert not temp_files(root)


def test_unfinished_blob_is_private_and_invisible(store, root):
    writer = store.writer()
    writer.write(DATA)
    (temp,) = temp_files(root)
    assert temp.stat().st_mode & 0o777 == 0o600
    assert not store.has_blob(DIGEST)
    writer.abort()
    assert not temp_files(root)
    writer.abort()


def test_empty_blob(store):
    assert store.put_bytes(b"") == f"sha256:{sha256(b'')}"
    assert store.verified_path(f"sha256:{sha256(b'')}").read_bytes() == b""


def test_wrong_digest_is_refused_and_nothing_stays(store, root):
    other = "sha256:" + "ab" * 32
    writer = store.writer()
    writer.write(DATA)
    with pytest.raises(DigestMismatchError) as caught:
        writer.commit(other)
    assert str(caught.value) == f'digest mismatch, expected "{other}", got "{DIGEST}"'
    assert not store.has_blob(DIGEST)
    assert not blob_files(root)
    assert not temp_files(root)


@pytest.mark.parametrize("digest", ["", "sha256:../x", "blake3:" + "0" * 64])
def test_bad_digest_is_refused_everywhere(store, digest):
    for use in (store.has_blob, store.blob_path, store.verified_path):
        with pytest.raises(InvalidDigestError):
            use(digest)


def test_missing_blob(store):
    assert not store.has_blob(DIGEST)
    for use in (store.blob_path, store.verified_path):
        with pytest.raises(BlobNotFoundError, match=DIGEST):
            use(DIGEST)


def test_add_file_copies(store, root, tmp_path):
    source = tmp_path / "model.gguf"
    source.write_bytes(DATA * 2)
    link = tmp_path / "link"
    link.symlink_to(source)  # the operator's own path may be a link
    assert store.add_file(link) == f"sha256:{sha256(DATA * 2)}"
    assert own_blob(root, DATA * 2).read_bytes() == source.read_bytes()
    with pytest.raises(StoreError) as caught:
        store.add_file(tmp_path / "absent")
    assert str(tmp_path) not in str(caught.value)


def test_untouched_blob_is_not_read_again(store, root):
    store.put_bytes(DATA)
    flip(own_blob(root))
    fake_check(root)
    assert store.verified_path(DIGEST) == own_blob(root)  # only the state can say so: the bytes are wrong


def test_full_verification_reads_every_time(store, root):
    store.put_bytes(DATA)
    flip(own_blob(root))
    fake_check(root)
    with pytest.raises(DamagedBlobError):
        Store(root, verify="full").verified_path(DIGEST)


def test_verification_can_be_switched_off(store, root):
    store.put_bytes(DATA)
    flip(own_blob(root))
    assert Store(root, verify="off").verified_path(DIGEST) == own_blob(root)


@pytest.mark.parametrize("position", range(0, len(DATA), len(DATA) // 15))
def test_flipped_bit_is_found_and_a_new_upload_repairs(store, root, position):
    store.put_bytes(DATA)
    flip(own_blob(root), position)
    with pytest.raises(DamagedBlobError) as caught:
        store.verified_path(DIGEST)
    assert str(root) not in str(caught.value)
    assert not store.has_blob(DIGEST)
    store.put_bytes(DATA)
    assert store.verified_path(DIGEST).read_bytes() == DATA


def test_touched_but_right_blob_is_checked_once(store, root):
    store.put_bytes(DATA)
    os.utime(own_blob(root), (1, 1))
    before = json.loads(alias(root).read_text())
    assert store.verified_path(DIGEST) == own_blob(root)
    after = json.loads(alias(root).read_text())
    assert after["mtime_ns"] == 10**9
    assert after["verified_at"] > before["verified_at"]
    assert after["blake3"] == before["blake3"]


def test_truncated_blob_counts_as_absent(store, root):
    store.put_bytes(DATA)
    os.truncate(own_blob(root), 10)
    assert not store.has_blob(DIGEST)
    store.put_bytes(DATA)
    assert store.verified_path(DIGEST).read_bytes() == DATA


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"blake3":"../../x"}', b"[" * 3000, b"\xff", b"9" * 5000]
)
def test_damaged_alias_is_made_again_at_the_next_start(store, root, damage):
    store.put_bytes(DATA)
    alias(root).write_bytes(damage)
    assert not store.has_blob(DIGEST)
    assert Store(root).verified_path(DIGEST) == own_blob(root)


def test_lost_aliases_are_made_again_at_the_next_start(store, root):
    for data in (DATA, b"x", b"y"):
        store.put_bytes(data)
        alias(root, data).unlink()
    again = Store(root)
    assert all(again.has_blob(f"sha256:{sha256(data)}") for data in (DATA, b"x", b"y"))


def test_damaged_blob_without_alias_is_not_adopted(store, root):
    store.put_bytes(DATA)
    flip(own_blob(root))
    alias(root).unlink()
    assert not Store(root).has_blob(DIGEST)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_named_and_leaves_nothing(store, root, monkeypatch, number):
    write, left = os.write, [len(DATA)]

    def limited(fd, data):
        if left[0] <= 0:
            raise OSError(number, os.strerror(number))
        left[0] -= 50_000
        return write(fd, data[:50_000])

    monkeypatch.setattr(os, "write", limited)
    writer = store.writer()
    writer.write(DATA[:500_000])
    with pytest.raises(NoSpaceError, match="no space left on the device"):
        writer.write(DATA)
    assert not temp_files(root)
    monkeypatch.undo()
    assert store.put_bytes(DATA) == DIGEST  # works again without a restart


def test_short_writes_are_completed(store, root, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:999]))
    store.put_bytes(DATA)
    monkeypatch.undo()
    assert own_blob(root).read_bytes() == DATA


def test_concurrent_writers_of_one_blob(store, root):
    start, errors = threading.Barrier(6), []

    def upload():
        try:
            with store.writer() as writer:
                start.wait()
                for begin in range(0, len(DATA), 100_000):
                    writer.write(DATA[begin : begin + 100_000])
                writer.commit(DIGEST)
        except Exception as error:  # noqa: BLE001 (any of them fails the test)
            errors.append(error)

    threads = [threading.Thread(target=upload) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert blob_files(root) == [own_blob(root).name]
    assert not temp_files(root)
    assert store.verified_path(DIGEST).read_bytes() == DATA


def test_start_removes_dead_temp_files_only(store, root):
    living = store.writer()
    living.write(DATA)
    folder = root / "ollamacore" / "tmp"
    dead = folder / ("0" * 32 + ".tmp")
    dead.write_bytes(b"half")
    foreign = folder / "notes.txt"
    foreign.write_bytes(b"keep")
    second = Store(root)
    assert not dead.exists()
    assert foreign.exists()
    living.commit(DIGEST)
    assert second.has_blob(DIGEST)


@pytest.mark.parametrize("separator", ["-", ":"])
def test_ollama_blob_is_read_in_place(root, ollama, separator):
    digest = ollama.blob(DATA, separator=separator)["digest"]
    before = snapshot(root / "blobs")
    store = Store(root)
    path = root / "blobs" / f"sha256{separator}{sha256(DATA)}"
    assert store.has_blob(digest)
    assert store.blob_path(digest) == path
    assert store.verified_path(digest) == path
    assert json.loads(alias(root).read_text())["blake3"] == blake3(DATA).hexdigest()
    assert store.verified_path(digest) == path
    assert snapshot(root / "blobs") == before
    assert not blob_files(root)


def test_ollama_blob_with_wrong_bytes_is_refused_and_kept(root, ollama):
    digest = ollama.blob(DATA)["digest"]
    path = root / "blobs" / f"sha256-{sha256(DATA)}"
    path.write_bytes(b"\0" * len(DATA))  # what a power loss leaves
    store = Store(root)
    with pytest.raises(DamagedBlobError):
        store.verified_path(digest)
    assert path.read_bytes() == b"\0" * len(DATA)
    store.put_bytes(DATA)
    assert store.verified_path(digest) == own_blob(root)


def test_ollama_blob_that_changes_after_its_check_is_refused(root, ollama):
    digest = ollama.blob(DATA)["digest"]
    store = Store(root)
    store.verified_path(digest)
    flip(root / "blobs" / f"sha256-{sha256(DATA)}")
    with pytest.raises(DamagedBlobError):
        store.verified_path(digest)


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder"])
@pytest.mark.parametrize("place", ["ours", "ollama"])
def test_only_regular_files_are_blobs(root, ollama, tmp_path, kind, place):
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    store = Store(root)
    store.put_bytes(DATA)
    path = own_blob(root)
    path.unlink()
    if place == "ollama":
        alias(root).unlink()
        path = root / "blobs" / f"sha256-{sha256(DATA)}"
        path.parent.mkdir()
    match kind:
        case "symlink":
            path.symlink_to(secret)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    assert not store.has_blob(DIGEST)
    with pytest.raises(BlobNotFoundError):
        store.verified_path(DIGEST)
    Store(root)  # and the start does not hang on it


def test_symlinked_alias_is_not_followed(store, root, tmp_path):
    store.put_bytes(DATA)
    moved = tmp_path / "alias"
    alias(root).rename(moved)
    alias(root).symlink_to(moved)
    assert not store.has_blob(DIGEST)
    assert Store(root).has_blob(DIGEST)
    assert not alias(root).is_symlink()


def test_packed_weights_go_with_their_blob(store, root, tmp_path):
    digest = store.put_bytes(DATA)
    folder = root / "ollamacore" / "packed"
    folder.mkdir()
    name = own_blob(root).name
    old, new, unfinished = (folder / f"{name}.{end}" for end in ("0.packed", "1.packed", "2.packed"))
    unfinished = folder / f".{unfinished.name}.ab.tmp"
    foreign, orphan = folder / "llama.gguf.0.packed", folder / f"blake3-{'0' * 64}.0.packed"
    for path in (old, new, unfinished, foreign, orphan):
        path.write_bytes(b"x")
    os.utime(old, (1, 1))
    store.collect_garbage(grace_s=1000)
    assert sorted(folder.iterdir()) == sorted([new, unfinished, foreign])
    store.collect_garbage(grace_s=-1000)
    assert not store.has_blob(digest)
    assert list(folder.iterdir()) == [foreign]
