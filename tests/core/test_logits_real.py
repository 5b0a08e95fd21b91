"""Logits of real models against exact answers: no farther off than llama.cpp, float formats within 1e-3."""

from contextlib import closing

import numpy as np
import pytest

import ollamacore
from tests.generate.convert import convert_gguf
from tests.goldens import DATA, differences, divergence, load_golden, log_softmax

pytestmark = pytest.mark.model

PROSE = DATA / "tokenizer" / "prose.txt"

#: golden -> fixture that gives the file
QUANTISED = {
    "smollm2-135m-q4_1": "smollm2_path",
    "gemma3-270m-q4_k_m": "gemma3_path",
    "qwen2.5-coder-0.5b-q4_k_m": "qwen05_path",
}
#: format -> golden; the exact answer of the Q4_1 file is that of its F32 conversion
CONVERTED = {"F32": "smollm2-135m-q4_1", "F16": "smollm2-135m-f16", "BF16": "smollm2-135m-bf16"}
#: the float formats are checked on the prompts up to this length
SHORT = 70
TOLERANCE = 1e-3


def answers(model, cases):
    """Pairs (exact answer, our logits) over every kept position of the cases."""
    for case in cases:
        rows = model.logits(case.tokens, last=len(case.exact))
        yield from zip(case.exact, rows, strict=True)


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_logits_no_farther_from_exact_than_llama_cpp(name, request):
    golden = load_golden(name)
    assert len(golden.cases) >= 40
    path = request.getfixturevalue(QUANTISED[name])
    with closing(ollamacore.Model.load(path, threads=2, kv_type="f16")) as model:
        found = [(divergence(*pair), differences(*pair).mean()) for pair in answers(model, golden.cases)]
    kl, difference = np.mean(found, axis=0)
    print(f"{name}: KL {kl:.5f} (llama.cpp {golden.llama_cpp_kl:.5f}), ", end="")
    print(f"difference {difference:.4f} (llama.cpp {golden.llama_cpp_difference:.4f})")
    assert kl <= golden.llama_cpp_kl
    assert difference <= golden.llama_cpp_difference


def test_q8_0_kv_cache_stays_as_close_to_f32_as_f16(smollm2_path):
    """Each rounds keys and values, so f32 is what both are measured against."""
    rows = []
    for kv_type in ("f32", "f16", "q8_0"):
        with closing(ollamacore.Model.load(smollm2_path, threads=2, context=1024, kv_type=kv_type)) as model:
            tokens = model.tokenize(PROSE.read_text() * 4)[:700]
            rows.append(np.array([log_softmax(row) for row in model.logits(tokens, last=64)]))
    exact = rows[0]
    f16, q8_0 = ((np.exp(exact) * (exact - ours)).sum(axis=1) for ours in rows[1:])
    assert 0 < q8_0.mean() < min(0.01, 2 * f16.mean())
    assert q8_0.max() < 0.1
    assert not np.array_equal(rows[1], rows[2]), "the cache is of that kind"


@pytest.fixture
def converted_smollm2(smollm2_path, tmp_path, request):
    """SmolLM2 decoded and rewritten in the format of the parameter; removed again, for it is large."""
    path = tmp_path / f"{request.param}.gguf"
    convert_gguf(smollm2_path, path, request.param)
    yield path
    path.unlink()


@pytest.mark.parametrize(
    ("converted_smollm2", "name"), CONVERTED.items(), ids=CONVERTED.keys(), indirect=["converted_smollm2"]
)
def test_float_logits_within_tolerance_of_exact(converted_smollm2, name):
    cases = [case for case in load_golden(name).cases if len(case.tokens) <= SHORT]
    assert len(cases) >= 40
    with closing(ollamacore.Model.load(converted_smollm2, threads=2, kv_type="f32")) as model:
        worst = max(differences(exact, row, len(exact.ids)).max() for exact, row in answers(model, cases))
    print(f"{name}: largest difference {worst:.2e}")
    assert worst <= TOLERANCE
