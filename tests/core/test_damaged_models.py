"""Damaged model files, loaded and run: every one ends in a clear error or in tokens, never in a crash."""

import random

import pytest

import ollamacore
from ollamacore import OllamaCoreError
from tests.generate.tiny import tiny_model

MUTATIONS = 150


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def sound(request, tmp_path_factory):
    path = tiny_model(tmp_path_factory.mktemp("sound") / "m.gguf", request.param, tensor_type="Q4_0", n_layer=2)
    return path.read_bytes()


def header_size(content):
    """Where the tensor data begins, roughly: the last tensor name stands before it."""
    return content.rindex(b".weight") + 64


def load_and_run(path):
    """Run the file; if it is refused, the text says why and shows no path."""
    try:
        with ollamacore.load(path, threads=2) as model:
            model.generate([3, 4, 5], num_predict=3, seed=1).text()
        refused = "runs"
    except OllamaCoreError as error:
        refused = str(error)
    assert refused
    assert str(path) not in refused


@pytest.mark.parametrize("seed", range(3))
def test_changed_bytes(sound, tmp_path, seed):
    chance = random.Random(seed)
    end = header_size(sound)
    for _ in range(MUTATIONS // 3):
        content = bytearray(sound)
        for _ in range(chance.choice([1, 1, 2, 8])):
            at = chance.randrange(end if chance.random() < 0.8 else len(content))
            content[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        path = tmp_path / "changed.gguf"
        path.write_bytes(content)
        load_and_run(path)


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "feed_forward_length", "attention.head_count",
                                 "attention.head_count_kv", "attention.key_length", "context_length",
                                 "rope.dimension_count", "attention.sliding_window"])  # fmt: skip
@pytest.mark.parametrize("value", [0, 1, 3, 7, 513, 65535, 0x7FFFFFFF, 0xFFFFFFFF])
def test_changed_hyperparameters(sound, tmp_path, key, value):
    at = sound.find(key.encode())
    if at < 0:
        return
    start = at + len(key) + 4  # after the value's type
    path = tmp_path / "changed.gguf"
    path.write_bytes(sound[:start] + value.to_bytes(4, "little") + sound[start + 4 :])
    load_and_run(path)


@pytest.mark.parametrize("fill", [0x00, 0xFF, 0x7C])
def test_weights_that_are_no_numbers(sound, tmp_path, fill):
    end = header_size(sound)
    path = tmp_path / "changed.gguf"
    path.write_bytes(sound[: end + 4096] + bytes([fill]) * (len(sound) - end - 4096))
    load_and_run(path)
