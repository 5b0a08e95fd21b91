"""The bell of a model: who looks for its chunks only when it has rung misses none."""

import os
import select
import threading
import time
from contextlib import contextmanager

import pytest

import ollamacore
from ollamacore import SamplingOptions
from tests.generate.scripted import scripted_model
from tests.generate.tiny import tiny_model


@contextmanager
def pipe():
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    yield ends
    for end in ends:
        os.close(end)


def hear_rings(rings, is_over, seconds=60):
    """Call `is_over` behind each ring until it says so; how often it was called."""
    deadline = time.monotonic() + seconds
    for count in range(1, 1 << 20):
        ready, _, _ = select.select([rings], [], [], max(deadline - time.monotonic(), 0))
        assert ready, "the bell has not rung for the last chunk"
        assert len(os.read(rings, 4096)) % 8 == 0
        if is_over():
            return count
    return 0


@pytest.mark.parametrize("streams", [1, 3])
def test_bell_rings_behind_every_last_chunk(tmp_path, streams):
    path = tiny_model(tmp_path / "tiny.gguf", "llama", tensor_type="Q8_0")
    with pipe() as (rings, bell), ollamacore.load(path, threads=2, bell=bell) as model:
        ends = []
        for n in range(streams):
            options = SamplingOptions(num_predict=20 + n)
            model.submit([5 + n] * 40, options, lambda chunk: chunk.done_reason and ends.append(chunk))
        assert hear_rings(rings, lambda: len(ends) == streams) > 1


def test_bell_rings_for_progress_of_a_prompt(tmp_path):
    path = tiny_model(tmp_path / "tiny.gguf", "llama", tensor_type="Q8_0", context=4096)
    with pipe() as (rings, bell), ollamacore.load(path, threads=2, bell=bell) as model:
        done, ends = [], []
        model.submit([5] * 3000, SamplingOptions(num_predict=1), ends.append, on_progress=done.append)
        hear_rings(rings, lambda: bool(done))
        assert not ends, "the first report is heard before the prompt's end"
        hear_rings(rings, lambda: bool(ends))


@pytest.mark.parametrize("end", ["close", "cancel", "error"])
def test_bell_rings_for_ends_of_all_kinds(tmp_path, end):
    path = scripted_model(tmp_path / "scripted.gguf", [f"w{n} " for n in range(3000)])
    with pipe() as (rings, bell), ollamacore.load(path, threads=2, bell=bell) as model:
        chunks, begun = [], threading.Event()

        def receive(chunk):
            chunks.append(chunk)
            begun.set()

        def fail(_):
            raise ValueError("broken")

        tokens = model.tokenize("<|go|>")
        report = fail if end == "error" else None
        generation = model.submit(tokens, SamplingOptions(), receive, on_progress=report)
        assert begun.wait(60)
        if end == "close":
            model.close()
        elif end == "cancel":
            generation.cancel()
        hear_rings(rings, lambda: chunks[-1].done_reason is not None)
        assert chunks[-1].done_reason == ("error" if end == "error" else "cancelled")
