"""bert: BERT encoders such as MiniLM, BGE, E5, GTE and Snowflake Arctic, and XLM-RoBERTa ones such as BGE-M3.

Learned positions, GELU without a gate, biases everywhere. XLM-RoBERTa counts positions from two on; converters cut the
first rows of its table off.
"""

from ollamacore.arch.encoder import PostNormBlock, post_norm_encoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan


def build(meta: Metadata) -> Plan:
    """The plan of a BERT model."""
    hyper = Hyper.read(meta, centers=True)
    return post_norm_encoder(meta.file, hyper, [PostNormBlock()] * hyper.n_layer)
