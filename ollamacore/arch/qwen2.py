"""qwen2: Qwen2 and Qwen2.5, dense.

As llama, with biases on q, k and v and rope over the two halves of a head.
"""

from ollamacore.arch.decoder import Block, dense_decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import scaled_rope
from ollamacore.gguf import GGUFFile


def build(file: GGUFFile) -> Plan:
    """The plan of a Qwen2 model."""
    meta = Metadata(file)
    hyper = Hyper.read(meta)

    def block(plan: Plan, layer: int) -> Block:
        rope = plan.rope("rope", *scaled_rope(meta, hyper.n_rot, hyper.rope_base))
        return Block(rope=rope, scale=hyper.head_dim**-0.5, neox=True)

    return dense_decoder(file, hyper, block)
