"""Prefixes on disk: found by the next process, and refused when anything about them is wrong."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

import ollamacore
from ollamacore import PrefixStore, _core
from tests.generate.tiny import tiny_model

PROMPT = [(7 * i + 3) % 250 + 3 for i in range(150)]
CACHED = len(PROMPT) - 1  # with its answer it fills whole blocks, and one token is always computed
MIB = 1 << 20


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("kept") / "tiny.gguf", "gemma3", tensor_type="Q8_0")


@pytest.fixture
def store(tmp_path):
    return PrefixStore(tmp_path / "prefixes", 64 * MIB)


def turn(path, store, prompt=PROMPT, **load):
    """(cached tokens, text) of one answer by a model that is loaded for it."""
    with ollamacore.load(path, threads=1, prefix_store=store, **load) as model:
        generation = model.generate(prompt, seed=1, num_predict=12)
        text = generation.text()
        return generation.stats.cached_tokens, text


def the_file(store):
    (path,) = store.folder.iterdir()
    return path


def test_the_next_load_finds_the_prefix_and_says_the_same(path, store):
    assert turn(path, store) == (0, text := turn(path, None)[1])
    assert turn(path, store) == (CACHED, text)
    assert turn(path, store, [*PROMPT[:100], 9, 9, 9])[0] == 100
    assert (the_file(store).stat().st_mode & 0o777, store.folder.stat().st_mode & 0o777) == (0o600, 0o700)


def test_another_process_answers_the_second_turn_from_it(path, store):
    program = """
import json, sys
from pathlib import Path
import ollamacore
path, folder, prompt = json.loads(sys.argv[1])
store = ollamacore.PrefixStore(Path(folder), 1 << 26)
model = ollamacore.load(path, threads=1, prefix_store=store)
generation = model.generate(prompt, seed=1, num_predict=12)
answer = [token for chunk in generation for token in chunk.tokens]
print(json.dumps([generation.stats.cached_tokens, answer]))
"""

    def run(prompt):
        arguments = json.dumps([str(path), str(store.folder), prompt])
        done = subprocess.run([sys.executable, "-c", program, arguments], capture_output=True, check=True, timeout=120)
        return json.loads(done.stdout)

    cached, answer = run(PROMPT)
    assert cached == 0
    cached, _ = run([*PROMPT, *answer, 5, 6, 7])
    assert cached == (len(PROMPT) + len(answer) - 1) // 32 * 32


def flip(data, place):
    data[place] ^= 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: flip(data, 0),
        lambda data: flip(data, 9),
        lambda data: flip(data, 40),
        lambda data: flip(data, len(data) // 2),
        lambda data: flip(data, -1),
        lambda data: data.clear(),
        lambda data: data.__delitem__(slice(100, None)),
        lambda data: data.__delitem__(slice(-1, None)),
        lambda data: data.extend(b"x"),
    ],
)
def test_a_damaged_file_is_ignored_and_written_anew(path, store, spoil, caplog):
    _, text = turn(path, store)
    data = bytearray(the_file(store).read_bytes())
    spoil(data)
    the_file(store).write_bytes(data)
    assert turn(path, store) == (0, text)
    assert "kept prefixes of tiny.gguf are ignored" in caplog.text
    assert turn(path, store)[0] == CACHED


def test_damage_leaves_no_block_taken(path, store):
    turn(path, store)
    data = bytearray(the_file(store).read_bytes())
    flip(data, -1)
    the_file(store).write_bytes(data)
    with ollamacore.load(path, threads=1, prefix_store=store) as model:
        model.generate([5], num_predict=1).text()
        assert (model.state.kv_blocks_used, model.state.kv_blocks_cached) == (0, 0)


def test_another_model_is_refused(path, store, tmp_path, caplog):
    turn(path, store)
    other = tiny_model(tmp_path / "other.gguf", "gemma3", tensor_type="Q8_0", seed=2)
    kept = the_file(store)
    cached, _ = turn(other, store)
    assert cached == 0
    (others,) = {*store.folder.iterdir()} - {kept}
    others.write_bytes(kept.read_bytes())
    assert turn(other, store)[0] == 0
    assert "made for another model" in caplog.text


def test_another_kv_type_is_another_file(path, store):
    turn(path, store)
    assert turn(path, store, kv_type="f32")[0] == 0
    assert turn(path, store, kv_type="f32")[0] == turn(path, store)[0] == CACHED


def test_other_kernels_are_refused(path, store, caplog):
    try:
        _core.set_cpu_mask(None)
        turn(path, store)
        _core.set_cpu_mask("generic")
        assert turn(path, store)[0] == 0
        assert "or build" in caplog.text
    finally:
        _core.set_cpu_mask(os.environ.get("OLLAMACORE_CPU"))


def test_size_is_bounded_in_a_file_and_in_the_folder(path, store, tmp_path):
    turn(path, store)
    size = the_file(store).stat().st_size
    small = replace(store, folder=tmp_path / "small", max_bytes=size * 3 // 4 + 4096)
    turn(path, small)
    assert 0 < the_file(small).stat().st_size <= small.max_bytes
    assert 0 < turn(path, small)[0] < CACHED, "the beginning of the prompt"
    other = tiny_model(tmp_path / "other.gguf", "gemma3", tensor_type="Q8_0", seed=2)
    turn(other, small)
    assert turn(other, small)[0] > 0, "the newest stays"
    assert sum(file.stat().st_size for file in small.folder.iterdir()) <= small.max_bytes


def test_a_folder_that_cannot_be_written_costs_a_line_in_the_log(path, tmp_path, caplog):
    (tmp_path / "file").write_text("x")
    store = PrefixStore(tmp_path / "file" / "prefixes", MIB)
    assert turn(path, store)[0] == 0
    assert "prefixes of tiny.gguf are not kept" in caplog.text


def test_a_share_of_nothing_switches_the_cache_off(path):
    with ollamacore.load(path, threads=1, prefix_share=0) as model:
        for _ in range(2):
            generation = model.generate(PROMPT, seed=1, num_predict=2)
            generation.text()
        assert generation.stats.cached_tokens == 0
        assert model.state.kv_blocks_used == 0
    with pytest.raises(ollamacore.InvalidOptionError, match="prefix_share"):
        ollamacore.load(path, prefix_share=2)
