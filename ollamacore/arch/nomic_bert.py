"""nomic-bert: nomic-embed-text v1 and v1.5, Snowflake Arctic embed m-long.

As bert, with rope instead of learned positions, SiLU gates, and no biases.
"""

from ollamacore.arch.decoder import GatedFeedForward
from ollamacore.arch.encoder import PostNormBlock, post_norm_encoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Nomic BERT model."""
    hyper = Hyper.read(meta, centers=True)
    block = PostNormBlock(rope=model_rope(meta, hyper), feed_forward=GatedFeedForward())
    return post_norm_encoder(meta.file, hyper, [block] * hyper.n_layer)
