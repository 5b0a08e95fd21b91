"""gemma3: Gemma 3, text only.

Scaled embeddings, norms before and after attention and feed-forward, norms on q and k, tanh-GELU gates. Five layers
of sliding-window attention with a local rope base to one layer of full attention.
"""

from dataclasses import replace

from ollamacore.arch.decoder import Block, GatedFeedForward, decoder
from ollamacore.arch.hyper import Hyper, Metadata, windowed_layers
from ollamacore.arch.plan import Plan
from ollamacore.arch.rope import Rope, model_rope, rope_frequencies

#: values that GGUF files of this architecture leave out
DEFAULT_PATTERN = 6
DEFAULT_LOCAL_BASE = 10000.0
#: layers of the 27B model, whose queries are scaled by n_embd / n_head instead of the head length
LAYERS_OF_27B = 62


def build(meta: Metadata) -> Plan:
    """The plan of a Gemma 3 model."""
    hyper = read_hyper(meta)
    return decoder(
        meta.file,
        hyper,
        gemma3_blocks(meta, hyper),
        embedding_scale=hyper.n_embd**0.5,
        logit_softcap=meta.number("final_logit_softcapping", 0.0, 1e6, 0.0),
    )


def read_hyper(meta: Metadata) -> Hyper:
    """The numbers of a Gemma 3 model; files of Ollama name the base of its rope differently."""
    hyper = Hyper.read(meta)
    return replace(hyper, rope_base=meta.number("rope.global.freq_base", 2.0, 1e12, hyper.rope_base))


def gemma3_blocks(meta: Metadata, hyper: Hyper) -> list[Block]:
    """The layers of a Gemma 3 model."""
    window = meta.integer("attention.sliding_window", 0, 1 << 26, 0)
    local_key = "rope.local.freq_base" if meta.has("rope.local.freq_base") else "rope.freq_base_swa"
    local_base = meta.number(local_key, 2.0, 1e12, DEFAULT_LOCAL_BASE)
    query_length = hyper.n_embd / hyper.n_head if hyper.n_layer == LAYERS_OF_27B else hyper.head_dim
    full = Block(
        rope=model_rope(meta, hyper),
        neox=True,
        scale=query_length**-0.5,
        head_norms=True,
        post_norms=True,
        feed_forward=GatedFeedForward(gelu=True),
    )
    local = replace(full, rope=Rope(rope_frequencies(hyper.n_rot, local_base)), window=window) if window else full
    return [local if is_local else full for is_local in windowed_layers(meta, hyper.n_layer, DEFAULT_PATTERN)]
