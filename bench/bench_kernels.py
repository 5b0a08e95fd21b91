"""Speed of every quantize row of kernels.def that this processor can run; bench/kernels.py has the matmul rows.

run: pytest bench/bench_kernels.py            extra_info: values per nanosecond
"""

import numpy as np
import pytest

from ollamacore import _core

KERNELS = list(enumerate(_core.kernel_rows()))


def named(op):
    return [pytest.param(i, row[3], id=row[2]) for i, row in KERNELS if row[0] == op and row[5]]


@pytest.mark.parametrize(("index", "_type"), named("quantize"))
def bench_quantize(benchmark, index, _type):
    x = np.random.default_rng(0).standard_normal(1 << 14).astype(np.float32)
    codes, scale, total = np.empty(1 << 14, np.int8), np.empty(1024, np.float32), np.empty(512, np.float32)
    benchmark(_core.run_quantize, index, x, 1 << 14, codes, scale, total)
    if benchmark.enabled:
        benchmark.extra_info["values/ns"] = round((1 << 14) / (benchmark.stats.stats.min * 1e9), 2)
