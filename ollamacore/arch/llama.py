"""llama: Llama 1-3, SmolLM2, Mistral and others that GGUF files call `llama`.

Pre-norm blocks, grouped-query attention with rope over adjacent pairs, SwiGLU; optional Llama-3 rope factors.
"""

from ollamacore.arch.decoder import Block, dense_decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import scaled_rope
from ollamacore.errors import UnsupportedModelError
from ollamacore.gguf import GGUFFile


def build(file: GGUFFile) -> Plan:
    """The plan of a llama model."""
    meta = Metadata(file)
    if meta.integer("expert_count", 0, 1 << 16, 0):
        raise UnsupportedModelError("mixture-of-experts llama models are not supported")
    hyper = Hyper.read(meta)

    def block(plan: Plan, layer: int) -> Block:
        freq, mscale = scaled_rope(meta, hyper.n_rot, hyper.rope_base)
        if plan.has("rope_freqs.weight"):
            freq = freq / plan.floats("rope_freqs.weight", hyper.n_rot // 2)
        return Block(rope=plan.rope("rope", freq, mscale), scale=hyper.head_dim**-0.5)

    return dense_decoder(file, hyper, block)
