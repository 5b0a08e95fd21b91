"""gpt-oss: experts with biases and a clamped gate, attention sinks, a sliding window on every other layer, YaRN."""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Hyper, Metadata, windowed_layers
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope

#: one layer in this many attends to everything, where the file does not say
DEFAULT_PATTERN = 2


def build(meta: Metadata) -> Plan:
    """The plan of a gpt-oss model."""
    hyper = Hyper.read(meta)
    window = meta.integer("attention.sliding_window", 0, 1 << 26, 0)
    blocks = [
        Block(
            rope=model_rope(meta, hyper, whole_pairs=False),
            neox=True,
            window=window if is_local else 0,
            ffn_norm="post_attention_norm",
            feed_forward=ExpertFeedForward.read(meta, normalize=True, clamp=True),
        )
        for is_local in windowed_layers(meta, hyper.n_layer, DEFAULT_PATTERN)
    ]
    return decoder(meta.file, hyper, blocks)
