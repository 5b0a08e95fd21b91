"""mamba2: Mamba 2, Codestral Mamba.

Every block is a state space: no attention, no feed-forward.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.recurrent import StateSpace


def build(meta: Metadata) -> Plan:
    """The plan of a Mamba 2 model."""
    hyper = Hyper.without_attention(meta)
    return decoder(meta.file, hyper, [Block(mixer=StateSpace.read(meta), has_feed_forward=False)] * hyper.n_layer)
