"""granite: Granite 3, dense.

As llama, with factors for the embedding, attention scores, what a block adds, and (a divisor) the logits.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Granite model."""
    hyper = Hyper.read(meta)
    block = Block(
        rope=model_rope(meta, hyper) if meta.flag("rope.scaling.finetuned", True) else None,
        scale=meta.number("attention.scale", 0.0, 1e3, 0.0) or None,
        residual_scale=meta.number("residual_scale", 0.0, 1e3, 1.0),
    )
    return decoder(
        meta.file,
        hyper,
        [block] * hyper.n_layer,
        embedding_scale=meta.number("embedding_scale", 0.0, 1e4, 1.0),
        logit_scale=1.0 / meta.number("logit_scale", 1e-6, 1e4, 1.0),
    )
