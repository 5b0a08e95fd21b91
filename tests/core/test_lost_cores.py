"""Steps whose threads lose their cores: others do over what these hold, and nobody's late writing reaches the results.

More threads than cores, and chunks that take long enough for one to be off its core in the middle of them.
"""

import os
from array import array

import numpy as np
import pytest

from ollamacore import _core
from tests.core.engines import open_engine, row
from tests.generate.moe import moe_model
from tests.generate.tiny import tiny_model

TOKENS = array("i", [(7 * i * i + 3 * i + 5) % 380 + 3 for i in range(300)])
MAKERS = {
    "dense": lambda path: tiny_model(path, tensor_type="Q8_0", n_layer=3, n_embd=1024, n_ff=3072),
    "experts": lambda path: moe_model(path, "qwen2moe", tensor_type="Q8_0", n_embd=1024, n_ff=512, n_expert=8),
}


@pytest.fixture(scope="module", params=MAKERS)
def path(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp("lost") / "m.gguf")


def test_logits_are_those_of_a_thread_alone(path):
    def every_row(n_threads):
        engine = open_engine(path, n_threads, max_tokens=64)
        stream = _core.Sequence(engine)
        engine.step([(stream, TOKENS[:20], 0)])
        for n in range(40):
            prompt = _core.Sequence(engine)
            chunk = TOKENS[n : n + (5, 12, 60)[n % 3]]
            engine.step([(stream, int(TOKENS[n]), 1), (prompt, chunk, 1)])
            yield row(engine, 0), row(engine, 1)
            engine.step([(stream, int(TOKENS[n + 1]), 1)])
            yield (row(engine),)
            prompt.close()

    for ours, reference in zip(every_row(2 * os.cpu_count() + 1), every_row(1), strict=True):
        assert np.array_equal(ours, reference)
