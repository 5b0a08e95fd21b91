"""What hybrid models have in place of attention in most layers, with a state that does not grow with the context."""

from dataclasses import dataclass

from ollamacore.arch.hyper import Hyper, Metadata
from ollamacore.arch.plan import DeltaHeads, Plan, Rows
from ollamacore.errors import InvalidFileError, UnsupportedModelError

#: positions of the widest convolution that the engine has
_MAX_WIDTH = 16


def attention_layers(meta: Metadata, n_layer: int, n_draft: int = 0, interval: int = 1) -> tuple[list[bool], int]:
    """Which layers have attention, and its KV heads; n_draft layers behind them are of no interest.

    A layer for which the file counts none has no attention. Where it has one number for all, it says which layers
    have none, or that only every so many layers have it, every `interval`th if it says nothing.
    """
    heads = meta.integers("attention.head_count_kv", n_layer + n_draft, 0, 1024)[:n_layer]
    is_recurrent = meta.flags("attention.recurrent_layers", n_layer + n_draft)
    if is_recurrent is not None:
        heads = [0 if recurrent else n for n, recurrent in zip(heads, is_recurrent, strict=False)]
    elif 0 not in heads:
        interval = meta.integer("full_attention_interval", 1, 512, interval)
        heads = [n if (layer + 1) % interval == 0 else 0 for layer, n in enumerate(heads)]
    counts = set(heads) - {0}
    if len(counts) != 1:
        raise UnsupportedModelError("layers with different numbers of KV heads, or none with any, are not supported")
    return [n > 0 for n in heads], counts.pop()


@dataclass(frozen=True, slots=True)
class ShortConvolution:
    """out(c * conv(b * x)), where b, c and x are projections of the input (LFM2)."""

    width: int

    @classmethod
    def read(cls, meta: Metadata) -> "ShortConvolution":
        """What the file says."""
        return cls(meta.integer("shortconv.l_cache", 2, _MAX_WIDTH))

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str) -> str:
        """See Mixer."""
        n, name = hyper.n_embd, f"{name}shortconv."
        mixed = plan.linear(normed, Rows(f"{name}in_proj", 3 * n), "mixed")
        convolved = plan.convolve(mixed, f"{name}conv", n, self.width, "convolved", gated=True)
        return plan.linear(convolved, Rows(f"{name}out_proj", n), "projected")


def _heads(meta: Metadata) -> DeltaHeads:
    """Heads of a state, as the file has them."""
    n_k = meta.integer("ssm.group_count", 1, 1024)
    n_v = meta.integer("ssm.time_step_rank", 1, 1024)
    inner = meta.integer("ssm.inner_size", 1, 1 << 20)
    if n_v % n_k or inner % n_v or inner // n_v > 1024:
        raise InvalidFileError(f"a state of {inner} values with {n_v} heads of values and {n_k} of keys")
    return DeltaHeads(n_k, meta.integer("ssm.state_size", 1, 1024), n_v, inner // n_v)


@dataclass(frozen=True, slots=True)
class StateSpace:
    """A state space with a decay for each head (Dao and Gu, Mamba 2, arXiv 2405.21060), gated, normed and projected."""

    heads: DeltaHeads
    width: int  # of the convolution

    @classmethod
    def read(cls, meta: Metadata) -> "StateSpace":
        """What the file says."""
        return cls(_heads(meta), meta.integer("ssm.conv_kernel", 2, _MAX_WIDTH))

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str) -> str:
        """See Mixer."""
        heads, name = self.heads, f"{name}ssm"
        values = heads.n_v * heads.value
        channels = values + 2 * heads.n_k * heads.key
        of = values + channels + heads.n_v
        gate = plan.linear(normed, Rows(f"{name}_in", values, 0, of), "gate", join=True)
        step = plan.linear(normed, Rows(f"{name}_in", heads.n_v, values + channels, of), "step", join=True)
        mixed = plan.linear(normed, Rows(f"{name}_in", channels, values, of), "mixed")
        convolved = plan.convolve(mixed, f"{name}_conv1d", channels, self.width, "convolved")
        scanned = plan.scan(convolved, heads, name, step=step, gate=gate)
        plan.norm_buffer(scanned, f"{name}_norm", hyper.eps, parts=heads.n_k, own_weights=True, quantize=True)
        return plan.linear(scanned, Rows(f"{name}_out", hyper.n_embd), "projected")


@dataclass(frozen=True, slots=True)
class GatedDeltaNet:
    """The gated delta rule over convolved q, k and v (Yang et al., arXiv 2412.06464), normed, gated and projected."""

    heads: DeltaHeads
    width: int  # of the convolution
    grouped: bool  # beta and alpha are one matrix, by heads of k

    @classmethod
    def read(cls, meta: Metadata, *, grouped: bool) -> "GatedDeltaNet":
        """What the file says."""
        return cls(_heads(meta), meta.integer("ssm.conv_kernel", 2, _MAX_WIDTH), grouped)

    def __call__(self, plan: Plan, hyper: Hyper, name: str, normed: str) -> str:
        """See Mixer."""
        heads = self.heads
        values = heads.n_v * heads.value
        channels = 2 * heads.n_k * heads.key + values
        gate_rows, mixed_rows = self._inputs(plan, name, channels, values)
        gate = plan.linear(normed, gate_rows, "gate", join=True)
        if self.grouped:
            beta, alpha = plan.linear(normed, Rows(f"{name}ssm_ba", 2 * heads.n_v), "beta", join=True), None
        else:
            beta = plan.linear(normed, Rows(f"{name}ssm_beta", heads.n_v), "beta", join=True)
            alpha = plan.linear(normed, Rows(f"{name}ssm_alpha", heads.n_v), "alpha", join=True)
        mixed = plan.linear(normed, mixed_rows, "mixed")
        convolved = plan.convolve(mixed, f"{name}ssm_conv1d", channels, self.width, "convolved")
        recalled = plan.delta(convolved, heads, f"{name}ssm", hyper.eps, beta=beta, alpha=alpha, gate=gate)
        return plan.linear(recalled, Rows(f"{name}ssm_out", hyper.n_embd), "projected")

    def _inputs(self, plan: Plan, name: str, channels: int, values: int) -> tuple[Rows, Rows]:
        """Where the gate is, and q, k and v. Old files have one tensor: q, k, v and gate of each head of keys."""
        if not plan.has(f"{name}ssm_in.weight"):
            return Rows(f"{name}attn_gate", values), Rows(f"{name}attn_qkv", channels)
        key, wide = self.heads.key, values // self.heads.n_k
        step = 2 * (key + wide)
        heads = range(0, self.heads.n_k * step, step)
        q, k = ([(first + at, key) for first in heads] for at in (0, key))
        v, gate = ([(first + at, wide) for first in heads] for at in (2 * key, 2 * key + wide))
        old, of = f"{name}ssm_in", len(heads) * step
        return Rows(old, values, of=of, order=tuple(gate)), Rows(old, channels, of=of, order=(*q, *k, *v))
