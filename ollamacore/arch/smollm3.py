"""smollm3: SmolLM3.

As llama, but every fourth layer has no rope.
"""

from dataclasses import replace

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope

#: one layer in this many has no rope; files do not say
NO_ROPE_INTERVAL = 4


def build(meta: Metadata) -> Plan:
    """The plan of a SmolLM3 model."""
    hyper = Hyper.read(meta)
    roped = Block(rope=model_rope(meta, hyper))
    plain = replace(roped, rope=None)
    blocks = [roped if (layer + 1) % NO_ROPE_INTERVAL else plain for layer in range(hyper.n_layer)]
    return decoder(meta.file, hyper, blocks)
