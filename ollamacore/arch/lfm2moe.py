"""lfm2moe: LFM2 with experts (8B-A1B).

As lfm2, with a dense feed-forward in the first blocks and experts, chosen by sigmoid and a bias, in the others.
"""

from ollamacore.arch.decoder import GatedFeedForward
from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Metadata
from ollamacore.arch.lfm2 import hybrid
from ollamacore.arch.plan import Plan


def build(meta: Metadata) -> Plan:
    """The plan of an LFM2 mixture of experts."""
    n_layer = meta.integer("block_count", 1, 512)
    n_dense = meta.integer("leading_dense_block_count", 0, n_layer, 0)
    experts = ExpertFeedForward.read(meta, normalize=True)
    return hybrid(meta, [*[GatedFeedForward()] * n_dense, *[experts] * (n_layer - n_dense)])
