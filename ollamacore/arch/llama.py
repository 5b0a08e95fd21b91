"""llama: Llama 1-3, SmolLM2, Mistral, Mixtral and others that GGUF files call `llama`.

Pre-norm blocks, grouped-query attention with rope over adjacent pairs, SwiGLU, of several experts in Mixtral; optional
Llama-3 rope factors.
"""

from ollamacore.arch.decoder import Block, GatedFeedForward, decoder
from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a llama model."""
    hyper = Hyper.read(meta)
    has_experts = meta.integer("expert_count", 0, 1 << 16, 0) > 0
    feed_forward = ExpertFeedForward.read(meta, normalize=True) if has_experts else GatedFeedForward()
    block = Block(rope=model_rope(meta, hyper), feed_forward=feed_forward)
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
