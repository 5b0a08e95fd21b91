"""Types of the extension module."""

import numpy as np
import numpy.typing as npt

# ---- kernels ----

# ---- engine ----

# ---- sampler ----

# ---- text ----

def index_strings(data: memoryview, max_bytes: int, offsets: npt.NDArray[np.uint64]) -> None: ...
