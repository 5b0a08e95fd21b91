"""gemma3: Gemma 3, text only.

Scaled embeddings, norms before and after attention and feed-forward, norms on q and k, tanh-GELU gates. Five layers
of sliding-window attention with a local rope base to one layer of full attention.
"""

from ollamacore.arch.decoder import Block, dense_decoder
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import rope_frequencies, scaled_rope
from ollamacore.errors import UnsupportedModelError
from ollamacore.gguf import GGUFFile

#: values that GGUF files of this architecture leave out
DEFAULT_PATTERN = 6
DEFAULT_LOCAL_BASE = 10000.0
#: layers of the 27B model, whose queries are scaled by n_embd / n_head instead of the head length
LAYERS_OF_27B = 62


def build(file: GGUFFile) -> Plan:
    """The plan of a Gemma 3 model."""
    meta = Metadata(file)
    hyper = Hyper.read(meta)
    if meta.number("final_logit_softcapping", 0.0, 1e6, 0.0):
        raise UnsupportedModelError("logit soft-capping is not supported in gemma3")
    window = meta.integer("attention.sliding_window", 0, 1 << 26, 0)
    pattern = meta.integer("attention.sliding_window_pattern", 1, 512, DEFAULT_PATTERN)
    local_base = meta.number("rope.freq_base_swa", 2.0, 1e12, DEFAULT_LOCAL_BASE)
    query_length = hyper.n_embd / hyper.n_head if hyper.n_layer == LAYERS_OF_27B else hyper.head_dim

    def block(plan: Plan, layer: int) -> Block:
        is_local = window > 0 and (layer + 1) % pattern != 0
        if is_local:
            rope = plan.rope("rope_local", rope_frequencies(hyper.n_rot, local_base))
        else:
            rope = plan.rope("rope", *scaled_rope(meta, hyper.n_rot, hyper.rope_base))
        return Block(
            rope=rope,
            scale=query_length**-0.5,
            neox=True,
            gelu=True,
            window=window if is_local else 0,
            head_norms=True,
            post_norms=True,
        )

    return dense_decoder(file, hyper, block, embedding_scale=hyper.n_embd**0.5)
