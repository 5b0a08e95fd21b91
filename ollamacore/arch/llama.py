"""llama: Llama 1-3, SmolLM2, Mistral and others that GGUF files call `llama`.

Pre-norm blocks, grouped-query attention with rope over adjacent pairs, SwiGLU; optional Llama-3 rope factors.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope
from ollamacore.errors import UnsupportedModelError


def build(meta: Metadata) -> Plan:
    """The plan of a llama model."""
    if meta.integer("expert_count", 0, 1 << 16, 0):
        raise UnsupportedModelError("mixture-of-experts llama models are not supported")
    hyper = Hyper.read(meta)
    return decoder(meta.file, hyper, [Block(rope=model_rope(meta, hyper))] * hyper.n_layer)
