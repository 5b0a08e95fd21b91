"""gemma2: Gemma 2.

As gemma, with norms of what attention and feed-forward add, soft caps on attention scores and logits, and a sliding
window in every other layer.
"""

from dataclasses import replace

from ollamacore.arch.decoder import Block, GatedFeedForward, decoder
from ollamacore.arch.hyper import Hyper, Metadata, windowed_layers
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import model_rope

#: values that GGUF files of this architecture may leave out
DEFAULT_PATTERN, DEFAULT_WINDOW = 2, 4096
DEFAULT_ATTENTION_CAP, DEFAULT_LOGIT_CAP = 50.0, 30.0
#: layers of the 27B model, whose queries are scaled by n_embd / n_head instead of the head length
LAYERS_OF_27B = 46


def build(meta: Metadata) -> Plan:
    """The plan of a Gemma 2 model."""
    hyper = Hyper.read(meta)
    query_length = hyper.n_embd / hyper.n_head if hyper.n_layer == LAYERS_OF_27B else hyper.head_dim
    full = Block(
        rope=model_rope(meta, hyper),
        neox=True,
        scale=query_length**-0.5,
        softcap=meta.number("attn_logit_softcapping", 0.0, 1e6, DEFAULT_ATTENTION_CAP),
        post_norms=True,
        feed_forward=GatedFeedForward(gelu=True),
    )
    local = replace(full, window=meta.integer("attention.sliding_window", 0, 1 << 26, DEFAULT_WINDOW))
    return decoder(
        meta.file,
        hyper,
        [local if is_local else full for is_local in windowed_layers(meta, hyper.n_layer, DEFAULT_PATTERN)],
        embedding_scale=hyper.n_embd**0.5,
        logit_softcap=meta.number("final_logit_softcapping", 0.0, 1e6, DEFAULT_LOGIT_CAP),
    )
