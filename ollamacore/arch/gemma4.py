"""gemma4: Gemma 4, text only (E2B, E4B, 31B, 26B-A4B).

As gemma3, with norms on values and no scale on queries. Layers of full attention have longer heads, of which a part is
turned, and may make values of what keys are made of. E2B and E4B have an input for each layer, and late layers that
read the keys and values of earlier ones; 26B-A4B has experts beside its feed-forward.
"""

from dataclasses import dataclass

from ollamacore.arch.decoder import Block, GatedFeedForward, decoder
from ollamacore.arch.experts import gate_and_up
from ollamacore.arch.hyper import Hyper, Metadata, windowed_layers
from ollamacore.arch.per_layer import PerLayerInputs, kv_owners
from ollamacore.arch.plan import Experts, KVLayer, Plan, Routing, Rows
from ollamacore.arch.rope import Rope, model_rope, rope_frequencies
from ollamacore.errors import InvalidFileError, UnsupportedModelError

#: layers for each of full attention, where the file does not say
DEFAULT_PATTERN = 6
DEFAULT_LOCAL_BASE = 10000.0


@dataclass(frozen=True, slots=True)
class BesideExperts:
    """A feed-forward and a mixture of experts side by side, each with norms of its own."""

    dense: GatedFeedForward
    routing: Routing
    n_ff: int

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str, dst: str, scale: float) -> str:
        """See FeedForward."""
        block, eps, n_expert = name.removesuffix("ffn_"), hyper.eps, self.routing.n_expert
        both = self.dense(plan, hyper, name, normed, dst, scale)
        plan.norm_buffer(both, f"{block}post_ffw_norm_1", eps)
        seen = plan.norm_by(f"{name}gate_inp.scale", eps)
        router = plan.linear(seen, Rows(f"{name}gate_inp", n_expert), "router", scale=hyper.n_embd**-0.5)
        plan.route(router, self.routing, f"{name}exp_probs_b.bias", scale, factors=f"{name}down_exps.scale")
        seen = plan.norm(f"{block}pre_ffw_norm_2", eps)
        gate, up = gate_and_up(plan, name, n_expert, self.n_ff)
        chosen = plan.expert_glu(seen, gate, up, self.routing.n_used, gelu=True)
        down = Experts(f"{name}down_exps", n_expert, hyper.n_embd)
        mixed = plan.expert_sum(chosen, down, self.n_ff, self.routing.n_used, "mixed", shared=None, share=None)
        return plan.norm(None, eps, stream=both, add=(mixed,), post_norm=f"{block}post_ffw_norm_2")


def build(meta: Metadata) -> Plan:
    """The plan of a Gemma 4 model."""
    hyper = Hyper.read(meta, varied=True)
    return decoder(
        meta.file,
        hyper,
        _blocks(meta, hyper),
        embedding_scale=hyper.n_embd**0.5,
        logit_softcap=meta.number("final_logit_softcapping", 0.0, 1e6, 0.0),
        per_layer=PerLayerInputs.read(meta),
    )


def _blocks(meta: Metadata, hyper: Hyper) -> list[Block]:
    n_layer = hyper.n_layer
    is_windowed = windowed_layers(meta, n_layer, DEFAULT_PATTERN)
    owners = kv_owners(meta, is_windowed)
    n_kv_head = meta.integers("attention.head_count_kv", n_layer, 1, 1024, hyper.n_head)
    n_ff = meta.integers("feed_forward_length", n_layer, 1, 1 << 18)
    window = meta.integer("attention.sliding_window", 1, 1 << 26)
    ropes = {True: _local_rope(meta, hyper), False: _global_rope(meta, hyper, is_windowed)}
    head_dim = {True: _local_head(meta, hyper), False: hyper.head_dim}
    return [
        Block(
            rope=ropes[is_windowed[layer]],
            neox=True,
            heads=_heads(hyper, n_kv_head[layer], head_dim[is_windowed[layer]]),
            kv_of=owners[layer],
            scale=1.0,
            window=window if is_windowed[layer] else 0,
            head_norms=True,
            value_norm=True,
            post_norms=True,
            output_scale=_output_scale(meta, layer),
            feed_forward=_feed_forward(meta, layer, GatedFeedForward(gelu=True, n_ff=n_ff[layer])),
        )
        for layer in range(n_layer)
    ]


def _heads(hyper: Hyper, n_kv_head: int, head_dim: int) -> KVLayer:
    if hyper.n_head % n_kv_head:
        raise InvalidFileError(f"{hyper.n_head} heads are no multiple of {n_kv_head} KV heads")
    return KVLayer(n_kv_head, head_dim)


def _local_head(meta: Metadata, hyper: Hyper) -> int:
    """The length of heads in layers with a window."""
    head_dim = meta.integer("attention.key_length_swa", 1, 1024, hyper.head_dim)
    if meta.integer("attention.value_length_swa", 1, 1024, head_dim) != head_dim:
        raise UnsupportedModelError("keys and values of different length are not supported")
    return head_dim


def _local_rope(meta: Metadata, hyper: Hyper) -> Rope:
    head_dim = _local_head(meta, hyper)
    n_rot = meta.integer("rope.dimension_count_swa", 2, head_dim, head_dim)
    return Rope(rope_frequencies(n_rot, meta.number("rope.freq_base_swa", 2.0, 1e12, DEFAULT_LOCAL_BASE)))


def _global_rope(meta: Metadata, hyper: Hyper, is_windowed: list[bool]) -> Rope | None:
    """Divisors in the file keep pairs from turning; without them all would."""
    if all(is_windowed):
        return None
    if "rope_freqs.weight" not in meta.file.tensors:
        raise InvalidFileError("tensor 'rope_freqs.weight' is missing")
    return model_rope(meta, hyper)


def _output_scale(meta: Metadata, layer: int) -> float:
    name = f"blk.{layer}.layer_output_scale.weight"
    return float(meta.floats(name, 1)[0]) if name in meta.file.tensors else 1.0


def _feed_forward(meta: Metadata, layer: int, dense: GatedFeedForward) -> GatedFeedForward | BesideExperts:
    if f"blk.{layer}.ffn_gate_inp.weight" not in meta.file.tensors:
        return dense
    n_expert = meta.integer("expert_count", 1, 1 << 16)
    n_used = meta.integer("expert_used_count", 1, min(n_expert, 256))
    routing = Routing(n_expert=n_expert, n_used=n_used, normalize=True)
    return BesideExperts(dense, routing, meta.integer("expert_feed_forward_length", 1, 1 << 18))
