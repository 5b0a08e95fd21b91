"""modern-bert: ModernBERT and models made of it, such as GTE ModernBERT and Granite Embedding R2.

Layernorms without biases in front of attention and feed-forward, but for the first, which would norm the normed
embedding again; gates of GELU or SiLU. The first of three layers looks at the whole text, the others at a window with a
rope base of its own.
"""

from dataclasses import replace

from ollamacore.arch.decoder import Block, GatedFeedForward, encoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import Rope, model_rope, rope_frequencies
from ollamacore.errors import UnsupportedModelError

#: values that GGUF files of this architecture may leave out
DEFAULT_PATTERN = 3
DEFAULT_LOCAL_BASE = 10000.0


def build(meta: Metadata) -> Plan:
    """The plan of a ModernBERT model."""
    hyper = Hyper.read(meta, centers=True)
    window = meta.integer("attention.sliding_window", 0, 1 << 26, 0)
    pattern = meta.integer("attention.sliding_window_pattern", 1, 512, DEFAULT_PATTERN)
    local_base = meta.number("rope.freq_base_swa", 2.0, 1e12, DEFAULT_LOCAL_BASE)
    activation = meta.text("hidden_activation", "gelu")
    if activation not in ("gelu", "silu"):
        raise UnsupportedModelError(f"activation {activation!r} is not supported")
    full = Block(
        rope=model_rope(meta, hyper),
        neox=True,
        both_ways=True,
        center=True,
        norm_bias=False,
        feed_forward=GatedFeedForward(erf=activation == "gelu"),
    )
    local = replace(full, rope=Rope(rope_frequencies(hyper.n_rot, local_base)), window=window) if window else full
    blocks = [local if layer % pattern else full for layer in range(hyper.n_layer)]
    return encoder(meta.file, hyper, [replace(full, attn_norm=False), *blocks[1:]])
