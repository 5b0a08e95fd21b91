"""stablelm: StableLM 2 and StableLM 3B.

As llama, with layernorm, rope over part of a head, in two halves, and biases and a parallel residual in some models.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope
from ollamacore.errors import UnsupportedModelError


def build(meta: Metadata) -> Plan:
    """The plan of a StableLM model; one without norms in front of feed-forwards has a parallel residual."""
    if "blk.0.attn_q_norm.weight" in meta.file.tensors:
        raise UnsupportedModelError("stablelm models with norms on q and k are not supported")
    hyper = Hyper.read(meta, centers=True)
    parallel = "blk.0.ffn_norm.weight" not in meta.file.tensors
    block = Block(rope=model_rope(meta, hyper), neox=True, center=True, parallel=parallel)
    return decoder(meta.file, hyper, [block] * hyper.n_layer)
