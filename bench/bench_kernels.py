"""Speed of every matmul and quantize row of kernels.def that this processor can run.

run: pytest bench/bench_kernels.py            extra_info: GB/s of packed weights, MAC per nanosecond
`l2` is one column with 0.5 MB of weights, `dram` one column with 96 MB, `prefill` 32 columns with 0.5 MB.
"""

import numpy as np
import pytest

from ollamacore import _core

FORMATS = {row[0]: row[1:] for row in _core.format_rows()}
KERNELS = list(enumerate(_core.kernel_rows()))
K = 1024
#: name -> (columns, bytes of weights)
SHAPES = {"l2": (1, 1 << 19), "dram": (1, 96 << 20), "prefill": (32, 1 << 19)}


def named(op):
    return [pytest.param(i, row[3], id=row[2]) for i, row in KERNELS if row[0] == op and row[5]]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("index", "gguf_type"), named("matmul"))
def bench_matmul(benchmark, index, gguf_type, shape):
    n, size = SHAPES[shape]
    _, block, _, group_bytes, _ = FORMATS[gguf_type]
    group = K // block * group_bytes
    groups = size // group
    # The same small number in every byte is a normal float in every format: timing without denormals or NaN.
    matrix = np.full(groups * group, 0x11, np.uint8)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(n * K).astype(np.float32)
    codes = rng.integers(-127, 127, n * K, dtype=np.int8, endpoint=True)
    scale, total = np.full(n * K // 16, 0.01, np.float32), np.full(n * K // 32, 0.1, np.float32)
    y = np.empty(n * 8 * groups, np.float32)
    benchmark(_core.run_matmul, index, matrix, x, codes, scale, total, n, K, y, 8 * groups, 0, groups)
    if benchmark.enabled:
        nanoseconds = benchmark.stats.stats.min * 1e9
        benchmark.extra_info["GB/s"] = round(len(matrix) / nanoseconds, 2)
        benchmark.extra_info["MAC/ns"] = round(8 * groups * K * n / nanoseconds, 2)


@pytest.mark.parametrize(("index", "_type"), named("quantize"))
def bench_quantize(benchmark, index, _type):
    x = np.random.default_rng(0).standard_normal(1 << 14).astype(np.float32)
    codes, scale, total = np.empty(1 << 14, np.int8), np.empty(1024, np.float32), np.empty(512, np.float32)
    benchmark(_core.run_quantize, index, x, 1 << 14, codes, scale, total)
    if benchmark.enabled:
        benchmark.extra_info["values/ns"] = round((1 << 14) / (benchmark.stats.stats.min * 1e9), 2)
