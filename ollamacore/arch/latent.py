"""Multi-head latent attention (DeepSeek-AI, DeepSeek-V2, arXiv 2405.04434), computed where keys are small.

Keys and values of all heads are products of one latent vector a token, and of the cache's point of view there is one
key head: the latent and a key that rope has turned, for all heads. What makes a head's key of the latent is multiplied
to its query instead, and what makes its value to the sum of the latents that it attends to.
"""

from dataclasses import dataclass

from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import Part, Plan, Rows, Transposed
from ollamacore.arch.rope import Rope


@dataclass(frozen=True, slots=True)
class LatentShape:
    """Values of a latent, and of each head: of its key without rope and with it, and of its value."""

    latent: int
    plain: int
    turned: int
    value: int

    @classmethod
    def read(cls, meta: Metadata) -> "LatentShape":
        """What the file says; older ones, without names for that, give the lengths of keys and values of heads."""
        turned = meta.integer("rope.dimension_count", 2, 512)
        key = meta.integer("attention.key_length", 1, 1024)
        key = meta.integer("attention.key_length_mla", turned + 1, 1024, max(key, turned + 1))
        value = meta.integer("attention.value_length", 1, 1024)
        value = meta.integer("attention.value_length_mla", 1, 1024, value)
        latent = meta.integer("attention.kv_lora_rank", 1, 1024 - turned)
        return cls(latent, key - turned, turned, value)

    @property
    def cached(self) -> int:
        """Values of a key in the cache."""
        return self.latent + self.turned


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """See the module."""

    shape: LatentShape
    rope: Rope
    scale: float

    def __call__(self, plan: Plan, hyper: Hyper, layer: int, normed: str) -> str:
        """See Attention."""
        name, shape = f"blk.{layer}.attn_", self.shape
        key_maker, value_maker = self._makers(plan, hyper.n_head, name)
        q = self._queries(plan, hyper, name, normed)
        attended = plan.attention(
            plan.head_linear(q, key_maker, hyper.n_head, "queries"),
            "latent",
            None,
            layer,
            n_head=hyper.n_head,
            scale=self.scale,
            rope=plan.rope(*self.rope),
            rope_at=shape.latent,
            k_norm=f"{name}kv_a_norm.weight",
            eps=hyper.eps,
        )
        return plan.head_linear(attended, value_maker, hyper.n_head, "values")

    def _queries(self, plan: Plan, hyper: Hyper, name: str, normed: str) -> str:
        """The queries, by way of a smaller vector where the file has that, and the latent."""
        latent = Rows(f"{name}kv_a_mqa", self.shape.cached)
        n = hyper.n_head * (self.shape.plain + self.shape.turned)
        if not plan.has(f"{name}q_a.weight"):
            q = plan.linear(normed, Rows(f"{name}q", n), "q", join=True, quantize=True)
            plan.linear(normed, latent, "latent")
            return q
        low = plan.linear(normed, Rows(f"{name}q_a", plan.rows(f"{name}q_a.weight")), "q_low", join=True)
        plan.linear(normed, latent, "latent")
        plan.norm_buffer(low, f"{name}q_a_norm", hyper.eps, quantize=True)
        return plan.linear(low, Rows(f"{name}q_b", n), "q", quantize=True)

    def _makers(self, plan: Plan, n_head: int, name: str) -> tuple[str, str]:
        """The matrices of all heads that turn a query to the latent, and a latent to a value.

        Older files have the rows that make keys and values of a latent, head after head; the first must be transposed.
        """
        shape, both = self.shape, f"{name}kv_b.weight"
        k, v = f"{name}k_b.weight", f"{name}v_b.weight"
        k_rows, v_rows = n_head * shape.latent, n_head * shape.value
        if plan.has(k) or not plan.has(both):
            plan.unused.add(both)  # some files have it in both forms
            plan.expect(k, (shape.plain, shape.latent, n_head))
            plan.expect(v, (shape.latent, shape.value, n_head))
            keys, values = Part(k, 0, k_rows, shape.plain), Part(v, 0, v_rows, shape.latent)
        else:
            of = shape.plain + shape.value
            plan.expect(both, (shape.latent, n_head * of))
            more = tuple((both, head * of + shape.plain) for head in range(1, n_head))
            keys = Transposed(both, 0, k_rows, shape.plain, n_head=n_head)
            values = Part(both, shape.plain, v_rows, shape.latent, more)
        return plan.heads(f"{name}keys", keys, shape.latent), plan.heads(f"{name}values", values, shape.value)
