"""deepseek2: DeepSeek V2, V3 and R1, and others that GGUF files call so (Moonlight, Kimi VL, GLM 4.7 Flash).

Latent attention, rope over adjacent pairs of a part of each head, experts behind a few dense layers.
"""

import math

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.experts import ExpertFeedForward, expert_blocks
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.latent import LatentAttention, LatentShape
from ollamacore.arch.plan import KVLayer, Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a DeepSeek model."""
    shape = LatentShape.read(meta)
    hyper = Hyper.read(meta, kv_heads=(1, shape.cached))
    attention = _attention(meta, hyper, shape)
    heads = KVLayer(1, shape.cached, shape.latent)
    block = Block(rope=attention.rope, heads=heads, attention=attention)
    blocks = expert_blocks(meta, hyper, block, ExpertFeedForward.read(meta, normalize=False))
    return decoder(meta.file, hyper, blocks)


def _attention(meta: Metadata, hyper: Hyper, shape: LatentShape) -> LatentAttention:
    """YaRN makes scores larger by the file's multiplier, which here is that of ln(factor), and not cos and sin."""
    rope, scale = model_rope(meta, hyper), (shape.plain + shape.turned) ** -0.5
    multiplier = meta.number("rope.scaling.yarn_log_multiplier", 0.0, 1e3, 0.0)
    if multiplier and meta.text("rope.scaling.type", "none") == "yarn":
        factor = meta.number("rope.scaling.factor", 0.0, 1e6, 1.0) or 1.0
        scale *= (1.0 + multiplier * math.log(factor)) ** 2
        rope = rope._replace(mscale=1.0)
    return LatentAttention(shape, rope, scale)
