"""The memory of a model: known before it is loaded, kept to, and refused in Ollama's words."""

import pytest

import ollamacore
from ollamacore import InvalidFileError, Model, OutOfMemoryError
from ollamacore.memory import Memory, StepLimits
from tests.generate.tiny import tiny_model

MIB = 1 << 20


@pytest.fixture(scope="module", params=["llama", "qwen2", "gemma3"])
def path(request, tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("memory") / "tiny.gguf", request.param, tensor_type="Q8_0", n_ff=4096)


def test_needed_is_at_least_what_is_reserved_and_little_more(path):
    needed = Model.memory_needed(path, context=512)
    with ollamacore.load(path, memory=needed) as model:
        assert model.max_context == 512
        assert needed - 12 * MIB < model.reserved_bytes <= needed


def test_a_byte_less_is_refused(path):
    needed = Model.memory_needed(path, repack=True)
    with pytest.raises(OutOfMemoryError, match=r"model requires more system memory \(\d+\.\d MiB\) than is available"):
        ollamacore.load(path, memory=needed - 1, repack=True)


def test_size_of_the_pool_counts(path):
    small, large = (Model.memory_needed(path, context=64, kv_bytes=size * MIB) for size in (8, 64))
    assert abs(large - small - 56 * MIB) < MIB


@pytest.mark.parametrize(
    ("room", "blocks"),
    [
        (4, 4),  # the least
        (15, 7),  # half
        (16, 16),  # a whole training context fits
        (40, 20),
        (1000, 64),  # the most
    ],
)
def test_pool_takes_half_of_the_room_or_a_training_context(room, blocks):
    memory = Memory(
        limits=StepLimits(256, 16, 16),
        kv_type="f16",
        is_packed=True,
        fixed=1000,
        kv_block=10,
        least_blocks=4,
        most_blocks=64,
        trained_blocks=16,
    )
    assert memory.blocks(1000 + 10 * room + 9) == blocks


def test_progress_is_told_and_may_end_the_load(path):
    seen = []
    ollamacore.load(path, on_progress=seen.append).close()
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert seen == sorted(seen)

    def stop(fraction):
        raise TimeoutError(f"at {fraction}")

    with pytest.raises(TimeoutError, match=r"at 0\.0"):
        ollamacore.load(path, on_progress=stop)


def test_vocabulary_that_cannot_be_read_ends_the_load(path, monkeypatch):
    def refuse(_):
        raise InvalidFileError("no vocabulary")

    monkeypatch.setattr("ollamacore.tokenizer.Tokenizer.from_gguf", refuse)
    with pytest.raises(InvalidFileError, match="no vocabulary"):
        ollamacore.load(path)
