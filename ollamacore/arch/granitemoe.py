"""granitemoe: Granite 3 with experts (1B-A400M, 3B-A800M), with or without a shared one.

As llama, with factors on embedding, attention scores, residual additions and logits.
"""

from ollamacore.arch.decoder import Block, decoder
from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope


def build(meta: Metadata) -> Plan:
    """The plan of a Granite mixture of experts."""
    hyper = Hyper.read(meta)
    block = Block(
        rope=model_rope(meta, hyper) if meta.flag("rope.scaling.finetuned", True) else None,
        scale=meta.number("attention.scale", 0.0, 1e3, 0.0) or None,
        residual_scale=meta.number("residual_scale", 0.0, 1e3, 0.0) or 1.0,
        feed_forward=ExpertFeedForward.read(meta, normalize=True),
    )
    return decoder(
        meta.file,
        hyper,
        [block] * hyper.n_layer,
        embedding_scale=meta.number("embedding_scale", 0.0, 1e6, 0.0) or 1.0,
        logit_scale=1.0 / (meta.number("logit_scale", 0.0, 1e6, 0.0) or 1.0),
    )
