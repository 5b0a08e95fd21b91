"""gpt-oss: experts with biases and a clamped gate, attention sinks, a sliding window on every other layer, YaRN."""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a gpt-oss model."""
    hyper = Hyper.read(meta)
    window = meta.integer("attention.sliding_window", 0, 1 << 26, 0)
    blocks = [
        Block(
            rope=model_rope(meta, hyper, whole_pairs=False),
            neox=True,
            window=0 if layer % 2 else window,
            ffn_norm="post_attention_norm",
            feed_forward=ExpertFeedForward.read(meta, normalize=True, clamp=True),
        )
        for layer in range(hyper.n_layer)
    ]
    return decoder(meta.file, hyper, blocks)
