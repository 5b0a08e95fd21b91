"""Mixtures of experts as feed-forward of a block, read from a file's metadata."""

from dataclasses import dataclass, replace

from ollamacore.arch.decoder import Block
from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Experts, Plan, Routing, Rows
from ollamacore.errors import InvalidFileError, UnsupportedModelError

#: values of expert_gating_func
SOFTMAX, SIGMOID = 1, 2


@dataclass(frozen=True, slots=True)
class ExpertFeedForward:
    """Of n experts each token goes to a few; their weighted sum, and a shared expert where the file has one."""

    routing: Routing
    n_ff: int
    clamp: bool = False
    gated: bool = True

    @classmethod
    def read(
        cls, meta: Metadata, *, normalize: bool, clamp: bool = False, gated: bool = True, gating: int = SOFTMAX
    ) -> "ExpertFeedForward":
        """What the file says; where it says nothing `gating`, and `normalize`: the chosen weights sum up to one."""
        n_expert = meta.integer("expert_count", 1, 1 << 16)
        n_used = meta.integer("expert_used_count", 1, 256)
        if n_used > n_expert:
            raise InvalidFileError(f"{n_used} of {n_expert} experts cannot be used")
        gating = meta.integer("expert_gating_func", 0, 1 << 16, gating) or gating
        if gating not in (SOFTMAX, SIGMOID):
            raise UnsupportedModelError(f"expert gating function {gating} is not supported")
        n_group = meta.integer("expert_group_count", 0, 64, 0)
        n_group_used = meta.integer("expert_group_used_count", 0, max(n_group, 1), n_group)
        if n_group > 1 and (n_expert % n_group or n_group_used == 0):
            raise InvalidFileError(f"{n_group_used} of {n_group} groups of {n_expert} experts cannot be used")
        routing = Routing(
            n_expert=n_expert,
            n_used=n_used,
            sigmoid=gating == SIGMOID,
            normalize=meta.flag("expert_weights_norm", normalize),
            scale=meta.number("expert_weights_scale", 0.0, 1e6, 1.0) or 1.0,
            n_group=n_group,
            n_group_used=n_group_used,
        )
        n_ff = meta.integer("expert_feed_forward_length", 0, 1 << 18, 0)
        return cls(routing, n_ff or meta.integer("feed_forward_length", 1, 1 << 18), clamp, gated)

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str, dst: str, scale: float) -> str:
        """See FeedForward."""
        n_embd, n_expert = hyper.n_embd, self.routing.n_expert
        has_shared = plan.has(f"{name}gate_shexp.weight")
        is_gated = plan.has(f"{name}gate_inp_shexp.weight")
        router = plan.linear(normed, Rows(f"{name}gate_inp", n_expert), "router", join=is_gated)
        share = plan.linear(normed, Rows(f"{name}gate_inp_shexp", 1), "share") if is_gated else None
        plan.route(router, self.routing, f"{name.removesuffix('ffn_')}exp_probs_b.bias", scale)
        shared = None
        if has_shared:
            n_shared = plan.rows(f"{name}gate_shexp.weight")
            gate, up = Rows(f"{name}gate_shexp", n_shared), Rows(f"{name}up_shexp", n_shared)
            gated = plan.glu(normed, gate, up, dst="ff_shared")
            shared = plan.linear(gated, Rows(f"{name}down_shexp", n_embd), "shared", scale=scale)
        down = Experts(f"{name}down_exps", n_expert, n_embd)
        if self.gated:
            gates, ups = gate_and_up(plan, name, n_expert, self.n_ff)
            chosen = plan.expert_glu(normed, gates, ups, self.routing.n_used, clamp=self.clamp)
        else:
            ups = Experts(f"{name}up_exps", n_expert, self.n_ff)
            chosen = plan.expert_glu(normed, ups, None, self.routing.n_used, erf=True)
        return plan.expert_sum(chosen, down, self.n_ff, self.routing.n_used, dst, shared=shared, share=share)


def gate_and_up(plan: Plan, name: str, n_expert: int, n_ff: int) -> tuple[Experts, Experts]:
    """Where the gates and ups of experts are: in two tensors, or of each expert one behind the other in one."""
    both = f"{name}gate_up_exps"
    if plan.has(f"{both}.weight"):
        return Experts(both, n_expert, n_ff, 0, 2 * n_ff), Experts(both, n_expert, n_ff, n_ff, 2 * n_ff)
    return Experts(f"{name}gate_exps", n_expert, n_ff), Experts(f"{name}up_exps", n_expert, n_ff)


def expert_blocks(meta: Metadata, hyper: Hyper, block: Block, feed_forward: ExpertFeedForward) -> list[Block]:
    """The blocks of a model whose first are dense, as `block` is; layers behind the last, for drafts, are left out."""
    n_layer = max(hyper.n_layer - meta.integer("nextn_predict_layers", 0, 512, 0), 1)
    n_dense = meta.integer("leading_dense_block_count", 0, 512, 0)
    sparse = replace(block, feed_forward=feed_forward)
    return [block if layer < n_dense else sparse for layer in range(n_layer)]
