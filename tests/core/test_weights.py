"""The three ways of weights into memory: packed, from a packed copy on disk, and left in their file."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ollamacore
from ollamacore import Model, OutOfMemoryError, machine
from tests.generate.tiny import tiny_model

TOKENS = [(7 * i + 3) % 300 for i in range(70)]
#: what gguf can write: the other formats differ in their kernels only, which take packed groups from either side
FORMATS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("weights") / "tiny.gguf", "gemma3", tensor_type="Q5_1", n_vocab=381)


@pytest.fixture(scope="module")
def exact(path):
    return logits(path)


def logits(path, **options):
    """Logits of a prompt and of single tokens after it."""
    with ollamacore.load(path, threads=2, **options) as model:
        return np.concatenate([model.logits(TOKENS, 20), model.logits(TOKENS[:1], 1)])


def copies(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("tensor_type", FORMATS)
def test_weights_left_in_their_file_give_the_same_bits(tmp_path, tensor_type):
    path = tiny_model(tmp_path / "tiny.gguf", "qwen2", tensor_type=tensor_type, n_vocab=381)
    assert np.array_equal(logits(path, repack=False), logits(path, repack=True))


def test_weights_left_in_their_file_take_no_memory(tmp_path):
    path = tiny_model(tmp_path / "tiny.gguf", "llama", tensor_type="F32", n_vocab=4096)
    with ollamacore.load(path, threads=1, repack=False) as lean, ollamacore.load(path, threads=1) as packed:
        assert lean.weight_bytes < packed.weight_bytes / 4


@pytest.mark.parametrize(("asked", "stays"), [("0", True), ("1", False)])
def test_environment_decides_where_weights_stay(path, monkeypatch, asked, stays):
    monkeypatch.setenv("OLLAMACORE_REPACK", asked)
    with ollamacore.load(path, threads=1) as model:
        assert (model._engine.packed_weights(0, 1) == b"") == stays


def test_weights_stay_in_their_file_when_only_then_they_fit(tmp_path):
    path = tiny_model(tmp_path / "large.gguf", n_ff=16384)  # its weights are larger than panels
    packed, in_file = (Model.memory_needed(path, kv_bytes=1 << 24, repack=repack) for repack in (True, False))
    assert in_file < packed
    for memory, stays in ((packed, False), (packed - 1, True)):
        with ollamacore.load(path, threads=1, kv_bytes=1 << 24, memory=memory) as model:
            assert (model._engine.packed_weights(0, 1) == b"") == stays


def test_model_larger_than_memory_is_refused(path, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 1 << 20)
    with pytest.raises(OutOfMemoryError, match="requires more system memory"):
        ollamacore.load(path, threads=1, kv_bytes=1 << 24)


def test_second_load_uses_the_packed_copy(path, exact, tmp_path):
    assert np.array_equal(logits(path, packed_cache=tmp_path), exact)
    (name,) = copies(tmp_path)
    assert name.startswith("tiny.gguf.")
    before = (tmp_path / name).stat()
    assert np.array_equal(logits(path, packed_cache=tmp_path), exact)
    assert (tmp_path / name).stat().st_ino == before.st_ino
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:4096] + bytes(before.st_size - 4096))
    assert not np.array_equal(logits(path, packed_cache=tmp_path), exact), "it is the copy that was read"


@pytest.mark.parametrize("spoil", ["truncated", "longer", "empty", "header", "version", "folder", "fifo"])
def test_spoilt_packed_copy_is_ignored(path, exact, tmp_path, spoil):
    logits(path, packed_cache=tmp_path)
    copy = tmp_path / copies(tmp_path)[0]
    data = bytearray(copy.read_bytes())
    copy.unlink()
    if spoil == "folder":
        (copy / "inside").mkdir(parents=True)
    elif spoil == "fifo":
        os.mkfifo(copy)
    else:
        data[20 if spoil == "header" else 8] ^= spoil in ("header", "version")
        size = {"truncated": len(data) - 64, "longer": len(data) + 64, "empty": 0}.get(spoil, len(data))
        copy.write_bytes((bytes(data) + bytes(64))[:size])
    assert np.array_equal(logits(path, packed_cache=tmp_path), exact)
    assert len(copies(tmp_path)) == 1, "nothing unfinished stays"
    assert np.array_equal(logits(path, packed_cache=tmp_path), exact)


def test_copy_of_another_file_is_not_used(path, exact, tmp_path):
    other = tmp_path / path.name
    cache = tmp_path / "cache"
    logits(path, packed_cache=cache)
    tiny_model(other, "gemma3", tensor_type="Q5_1", n_vocab=381, seed=2)
    assert np.array_equal(logits(other, packed_cache=cache), logits(other))
    assert np.array_equal(logits(path, packed_cache=cache), exact)
    assert len(copies(cache)) == 2


def test_loads_at_the_same_time_agree(path, exact, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: logits(path, packed_cache=tmp_path), range(3)))
    assert all(np.array_equal(one, exact) for one in found)
    assert len(copies(tmp_path)) == 1


@pytest.mark.parametrize("cause", ["full", "no space left", "no folder"])
def test_copy_that_cannot_be_written_is_harmless(path, exact, tmp_path, monkeypatch, cause):
    if cause == "full":  # while writing
        monkeypatch.setattr("ollamacore.weights._write", _fail)
    elif cause == "no space left":  # known before
        usage = os.statvfs_result((4096, 4096, 1000, 10, 10, 1, 1, 1, 0, 255))
        monkeypatch.setattr("ollamacore.weights.os.statvfs", lambda _: usage)
    folder = tmp_path / "cache"
    if cause == "no folder":
        folder.write_text("a file")
    assert np.array_equal(logits(path, packed_cache=folder), exact)
    assert cause == "no folder" or copies(folder) == []
    shutil.rmtree(folder, ignore_errors=True)


def _fail(fd, data):
    raise OSError(28, "No space left on device")
