"""Engines of generated models, fed by hand."""

from array import array

import numpy as np

from ollamacore import _core
from ollamacore.arch import build_plan
from ollamacore.gguf import GGUFFile


def open_engine(path, n_threads=2, **params):
    """A loaded engine for some short sequences."""
    plan = build_plan(GGUFFile.open(path))
    usual = {"max_tokens": 64, "max_outputs": 8, "max_seqs": 8, "kv_type": "f16", "kv_blocks": 40,
             "n_sequences": 6, "n_saved": 2}  # fmt: skip
    engine = _core.Engine(n_threads=n_threads, kv=plan.kv, state_size=plan.state_size, **usual | params)
    plan.install(engine)
    engine.load()
    return engine


def row(engine, index=0):
    """Logits of an output of the last step."""
    out = np.empty(engine.n_vocab, np.float32)
    engine.copy_logits(index, out)
    return out


def feed(engine, sequence, tokens: array, chunk=64):
    """Feed tokens in chunks; the logits of the last one."""
    for start in range(0, len(tokens), chunk):
        part = tokens[start : start + chunk]
        assert engine.step([(sequence, part, int(start + chunk >= len(tokens)))]) == _core.STEP_OK
    return row(engine)
