"""nomic-bert-moe: nomic-embed-text v2.

As bert, with rope instead of learned positions; every other layer has experts, without gates.
"""

from dataclasses import replace

from ollamacore.arch.encoder import PostNormBlock, post_norm_encoder
from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Nomic BERT model with experts."""
    hyper = Hyper.read(meta, centers=True)
    period = meta.integer("moe_every_n_layers", 2, 512)
    dense = PostNormBlock(rope=model_rope(meta, hyper))
    routed = replace(dense, feed_forward=ExpertFeedForward.read(meta, normalize=False, gated=False))
    blocks = [routed if layer % period == 1 else dense for layer in range(hyper.n_layer)]
    return post_norm_encoder(meta.file, hyper, blocks)
