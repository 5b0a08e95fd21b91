"""cohere2: Command R7B and Command A.

Layernorm without bias, a parallel residual, scaled logits; three layers of sliding-window attention to one layer of
full attention without rope.
"""

from dataclasses import replace

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata, windowed_layers
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope

#: one layer in this many attends to everything, where the file does not say
DEFAULT_PATTERN = 4


def build(meta: Metadata) -> Plan:
    """The plan of a Cohere 2 model."""
    hyper = Hyper.read(meta, centers=True)
    window = meta.integer("attention.sliding_window", 1, 1 << 26)
    local = Block(rope=model_rope(meta, hyper), window=window, center=True, norm_bias=False, parallel=True)
    full = replace(local, rope=None, window=0)
    return decoder(
        meta.file,
        hyper,
        [local if is_local else full for is_local in windowed_layers(meta, hyper.n_layer, DEFAULT_PATTERN)],
        logit_scale=meta.number("logit_scale", 0.0, 1e4, 1.0),
    )
