"""Our engine computes the tiny random models as the float64 reference does."""

import numpy as np
import pytest

import ollamacore
from tests.generate.numpy_reference import Reference, log_softmax
from tests.generate.tiny import SHAPES, noise, tiny_model

#: Prompt and answer cross the sliding window (16) and a KV block (32).
PROMPT = [(7 * i * i + 3 * i + 5) % 380 + 3 for i in range(40)]
STEPS = 24


def largest_difference(path) -> float:
    """Between the log-probabilities of a greedy answer's five best tokens and the reference's."""
    with ollamacore.load(path, threads=1, context=256, kv_type="f32") as model:
        chunks = list(model.generate(PROMPT, temperature=0.0, num_predict=STEPS, logprobs=True, top_logprobs=5))
    steps = [entry for chunk in chunks for entry in chunk.logprobs or ()]
    assert steps
    tokens = [*PROMPT, *(step.id for step in steps)]
    exact = log_softmax(Reference(path).logits(tokens))[len(PROMPT) - 1 :]
    differences = [
        abs(entry.logprob - exact[position, entry.id])
        for position, step in enumerate(steps)
        for entry in (step, *step.top)
    ]
    return max(differences)


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize(("tensor_type", "tolerance"), [("F32", 1e-4), ("F16", 1e-4), ("Q8_0", 0.6), ("Q4_0", 0.6)])
def test_engine_agrees_with_the_reference(tmp_path, architecture, tensor_type, tolerance):
    path = tiny_model(tmp_path / "m.gguf", architecture, tensor_type=tensor_type)
    assert largest_difference(path) < tolerance


@pytest.mark.parametrize("changes", [{"tied": False}, {"n_kv_head": 4}, {"n_kv_head": 1, "head_dim": 64}])
def test_engine_agrees_on_variants_of_llama(tmp_path, changes):
    path = tiny_model(tmp_path / "m.gguf", "llama", **changes)
    assert largest_difference(path) < 1e-4


def test_files_are_the_same_each_time(tmp_path):
    first = tiny_model(tmp_path / "a.gguf", "qwen2").read_bytes()
    assert first == tiny_model(tmp_path / "b.gguf", "qwen2").read_bytes()
    assert first != tiny_model(tmp_path / "c.gguf", "qwen2", seed=2).read_bytes()


def test_noise_is_centred_and_bounded():
    values = noise(1, "x", (200, 200))
    assert np.abs(values).max() <= 1
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 3**-0.5) < 0.01
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("architecture", SHAPES)
def test_logits_of_the_reference_are_spread(tmp_path, architecture):
    logits = Reference(tiny_model(tmp_path / "m.gguf", architecture)).logits(PROMPT)
    best = np.exp(log_softmax(logits)).max(axis=-1)
    assert 2 < logits.std() < 5
    assert 0.15 < best.mean() < 0.7
    assert len(set(logits.argmax(axis=-1))) > 10
