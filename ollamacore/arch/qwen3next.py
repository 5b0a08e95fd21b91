"""qwen3next: Qwen3-Next (80B-A3B).

Three blocks of a gated delta net to one of attention, whose heads are normed, gated, and turned by rope in part; a
mixture of experts everywhere, with one that all tokens share through a sigmoid gate.
"""

from ollamacore.arch.decoder import Block, FeedForward, decoder
from ollamacore.arch.experts import ExpertFeedForward
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Plan
from ollamacore.arch.recurrent import GatedDeltaNet, attention_layers
from ollamacore.arch.rope import model_rope

#: one layer in this many has attention, where the file does not say
ATTENTION_INTERVAL = 4


def build(meta: Metadata) -> Plan:
    """The plan of a Qwen3-Next model."""
    return hybrid(meta, ExpertFeedForward.read(meta, normalize=True), grouped=True)


def hybrid(meta: Metadata, feed_forward: FeedForward, *, grouped: bool) -> Plan:
    """A model with this feed-forward; `grouped` is as GatedDeltaNet has it.

    Layers that predict further tokens may stand behind the others; they are not used.
    """
    n_layer = meta.integer("block_count", 1, 512)
    n_draft = meta.integer("nextn_predict_layers", 0, n_layer - 1, 0)
    attends, n_kv_head = attention_layers(meta, n_layer - n_draft, n_draft, ATTENTION_INTERVAL)
    hyper = Hyper.read(meta, n_kv_head=n_kv_head)
    norm = "post_attention_norm"
    delta = Block(mixer=GatedDeltaNet.read(meta, grouped=grouped), ffn_norm=norm, feed_forward=feed_forward)
    rope = model_rope(meta, hyper)
    attention = Block(
        rope=rope, neox=True, head_norms=True, gated_heads=True, ffn_norm=norm, feed_forward=feed_forward
    )
    return decoder(meta.file, hyper, [attention if attending else delta for attending in attends])
