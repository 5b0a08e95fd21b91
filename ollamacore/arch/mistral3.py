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
    return decoder(meta.file, hyper, [Block(rope=model_rope(meta, hyper))] * hyper.n_layer)
