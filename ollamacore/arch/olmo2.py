"""olmo2: OLMo 2.

No norms in front of attention and feed-forward, but norms of what they add, and of q and k over all heads together.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of an OLMo 2 model."""
    hyper = Hyper.read(meta)
    block = Block(rope=model_rope(meta, hyper), neox=True, width_norms=True, pre_norms=False, post_norms=True)
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
