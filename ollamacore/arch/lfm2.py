"""lfm2: LFM2, dense.

Blocks of short convolutions, between them some of grouped-query attention with norms on the heads of q and k: those for
which the file counts KV heads. SwiGLU everywhere; the head is the embedding.
"""

from collections.abc import Sequence

from ollamacore.arch.decoder import Block, FeedForward, GatedFeedForward, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.recurrent import ShortConvolution, attention_layers
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of an LFM2 model."""
    n_layer = meta.integer("block_count", 1, 512)
    return hybrid(meta, [GatedFeedForward()] * n_layer)


def hybrid(meta: Metadata, feed_forward: Sequence[FeedForward]) -> Plan:
    """A model whose blocks have these feed-forwards."""
    attends, n_kv_head = attention_layers(meta, len(feed_forward))
    hyper = Hyper.read(meta, n_kv_head=n_kv_head)
    rope, convolution = model_rope(meta, hyper), ShortConvolution.read(meta)
    window = meta.integer("attention.sliding_window", 0, 1 << 26, 0)
    blocks = [
        Block(rope=rope, neox=True, head_norms=True, window=window, feed_forward=forward)
        if is_attention
        else Block(mixer=convolution, feed_forward=forward)
        for is_attention, forward in zip(attends, feed_forward, strict=True)
    ]
    return decoder(meta.file, hyper, blocks, output_norm="token_embd_norm")
