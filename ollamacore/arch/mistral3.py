"""mistral3: Ministral 3 and Mistral Small 3.

As llama, with YaRN. Queries beyond the original context grow with the logarithm of their position in some models; of
those the original context is what can be used.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Mistral 3 model."""
    hyper = Hyper.read(meta)
    rope = model_rope(meta, hyper)
    if meta.number("attention.temperature_scale", 0.0, 1e3, 0.0):
        original = meta.integer("rope.scaling.original_context_length", 1, 1 << 26)
        rope = rope._replace(limit=original)
    return decoder(meta.file, hyper, [Block(rope=rope)] * hyper.n_layer)
