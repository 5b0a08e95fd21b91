"""The matmul rows that tests can run here.

Those are the rows this processor can run, and those of AVX-VNNI on any x86 processor with AVX2: their source is
compiled once more, with a header in `stand_in` that puts another instruction in the place of vpdpbusd.
"""

import ctypes
import os
import shlex
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ollamacore import _core

CSRC = Path(__file__).parents[2] / "csrc"
ROWS = _core.kernel_rows()
LEVELS = {row[4] for row in ROWS if row[5]}


class _Activations(ctypes.Structure):
    """oc_act of kernels.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("f32", "codes", "scale", "sum")),
        ("n", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("stride", ctypes.c_int64),
    ]


@cache
def _library():
    """Return the AVX-VNNI rows, compiled for the processor of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "avxvnni.so"
        flags = ["-std=c11", "-O2", "-ffp-contract=fast", "-fno-math-errno", "-w", "-fPIC", "-shared"]
        if "avx512vnni" in LEVELS:
            flags.append("-DEVEX")
        folders = [f"-I{Path(__file__).parent / 'stand_in'}", f"-I{CSRC}"]
        source = CSRC / "kernels" / "x86" / "matmul_avxvnni.c"
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, *flags, *folders, "-o", path, source], check=True)
        library = ctypes.CDLL(path)
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3)
    return {row[2]: prototype((row[2], library)) for row in ROWS if _is_emulated(row)}


def _is_emulated(row):
    return row[4] == "avxvnni" and not row[5] and "avx2" in LEVELS


def is_runnable(row):
    """Whether `run_matmul` can run this row of the kernel table."""
    return row[5] or _is_emulated(row)


def run_matmul(index, packed, f32, codes, scale, sums, n, k, y, ldy, g0, g1):
    """Call a matmul row, as _core.run_matmul does."""
    row = ROWS[index]
    if not _is_emulated(row):
        _core.run_matmul(index, packed, f32, codes, scale, sums, n, k, y, ldy, g0, g1)
        return
    x = _Activations(*(a.ctypes.data for a in (f32, codes, scale, sums)), n, k, len(f32) // n)
    _library()[row[2]](packed.ctypes.data, ctypes.byref(x), y.ctypes.data, ldy, g0, g1)
