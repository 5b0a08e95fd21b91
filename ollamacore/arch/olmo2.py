"""olmo2: OLMo 2 and 3.

No norms in front of attention and feed-forward, but norms of what they add, and of q and k over all heads together.
OLMo 3 has a sliding window in three of four layers, in which its rope is not scaled.
"""

from dataclasses import replace

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata, windowed_layers
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import Rope, model_rope, rope_frequencies

#: one layer in this many attends to everything, where the file does not say
DEFAULT_PATTERN = 4


def build(meta: Metadata) -> Plan:
    """The plan of an OLMo 2 model."""
    hyper = Hyper.read(meta)
    full = Block(rope=model_rope(meta, hyper), neox=True, width_norms=True, pre_norms=False, post_norms=True)
    window = meta.integer("attention.sliding_window", 0, 1 << 26, 0)
    if not window:
        return decoder(meta.file, hyper, [full] * hyper.n_layer)
    local_base = meta.number("rope.freq_base_swa", 2.0, 1e12, hyper.rope_base)
    local = replace(full, window=window, rope=Rope(rope_frequencies(hyper.n_rot, local_base)))
    blocks = [local if is_local else full for is_local in windowed_layers(meta, hyper.n_layer, DEFAULT_PATTERN)]
    return decoder(meta.file, hyper, blocks)
