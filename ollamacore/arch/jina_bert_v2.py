"""jina-bert-v2: jina-embeddings-v2 (base-en, small-en, base-es, base-de, base-zh, base-code), jina-reranker-v1.

As bert, with ALiBi instead of positions and GELU gates. The model for code has layernorms of q and k and two norms
behind attention; its tensor of gate and up begins with up.
"""

from ollamacore.arch.decoder import GatedFeedForward
from ollamacore.arch.encoder import PostNormBlock, post_norm_encoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan


def build(meta: Metadata) -> Plan:
    """The plan of a Jina BERT model."""
    hyper = Hyper.read(meta, centers=True)
    two_norms = "blk.0.attn_norm_2.weight" in meta.file.tensors
    block = PostNormBlock(alibi=True, feed_forward=GatedFeedForward(erf=True, up_first=two_norms))
    return post_norm_encoder(meta.file, hyper, [block] * hyper.n_layer)
